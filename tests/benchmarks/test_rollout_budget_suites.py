import json

import numpy as np
import pytest

from allocgym.agents.core import catalogue, training
from allocgym.agents.rollout_budget.agent import make_rule
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.rollout_budget import algebra, episodes, replay, simulator
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entry, load
from allocgym.envs.core.scenario import choose
from allocgym.envs.rollout_budget import curves
from allocgym.simulators.rollout_budget.scenario import SCENARIOS


def test_areas_are_means_over_what_was_spent():
    x, y = np.array([[0.0, 10.0, 20.0]]), np.array([[0.0, 1.0, 1.0]])
    assert curves.area(x, y, np.array([10.0]))[0] == pytest.approx(0.5)
    assert curves.area(x, y, np.array([20.0]))[0] == pytest.approx(0.75, abs=1e-3)
    # A run that ends early is held flat.
    assert curves.area(x, y, np.array([40.0]))[0] == pytest.approx(0.875, abs=1e-3)
    assert curves.at(x, y, np.array([5.0]))[0] == 0.5


def test_longer_episodes_have_the_same_dynamics():
    short = episodes.play("uniform", SCENARIOS["tiny"], np.arange(2), horizon=8, gain_spread=0.0)
    made = choose(SCENARIOS, "tiny", {"horizon": 8, "gain_spread": 0.0})
    longer = episodes.play("uniform", made.stretched(curves.LONGER), np.arange(2))
    assert longer["accuracy"].shape[1] == 11
    np.testing.assert_allclose(longer["accuracy"][:, :9], short["accuracy"], atol=1e-9)


def test_a_uniform_rival_of_itself_is_a_tie():
    scores = simulator.compare("homogeneous", ["uniform", "anti", "posterior-greedy"], 4)
    same = scores["posterior-greedy"]["rollouts"]["area"]
    np.testing.assert_allclose(scores["uniform"]["rollouts"]["area"], same, atol=1e-9)
    assert simulator.judge_control(scores).met


def test_a_winner_in_the_control_would_be_caught():
    scores = simulator.compare("homogeneous", ["uniform", "posterior-greedy"], 12)
    cheat = {
        axis: {k: v + 0.01 + 0.001 * np.arange(12) for k, v in scores["uniform"][axis].items()}
        for axis in curves.AXES
    }
    assert not simulator.judge_control({**scores, "cheat": cheat}).met


def test_replay_counts_both_ratios():
    truth = np.tile(np.linspace(0, 1, 256)[:, None], (1, 4))
    even = replay.replay("uniform", truth)
    assert even["prompt ratio"] == pytest.approx(even["rollout ratio"])
    p = truth[:, 0]
    assert even["prompt ratio"] == pytest.approx(np.mean(1 - p**8 - (1 - p) ** 8), abs=0.03)
    assert replay.replay("oracle", truth)["prompt ratio"] > even["prompt ratio"]


def test_the_algebra_suite_meets_its_musts(tmp_path, capsys):
    assert algebra.suite(Options(seeds=1, quick=True, out=tmp_path, check=True)) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("RESULT {")
    assert json.loads((tmp_path / "algebra.json").read_text())["figures"]


def test_training_writes_an_agent_that_can_be_loaded(tmp_path):
    pytest.importorskip("cma")
    path = tmp_path / "a.zip"
    small = {"horizon": 4, "rows": 8, "budget": 64}
    made = training.train("rollout-budget", path, "hard-tail", iterations=1, arguments=small)
    assert made["episodes"] == 128 and made["axis"] == "rollouts"
    assert make_rule(path).name == "a"
    with pytest.raises(AllocgymError, match="Did you mean 'tokens'"):
        training.train("rollout-budget", path, iterations=1, arguments={"axis": "token"})


def test_the_entry_knows_its_own():
    found = entry("rollout-budget")
    assert load(found.scenarios) is SCENARIOS
    agents = catalogue.names("rollout-budget")
    assert {"uniform", "anti", "oracle"} <= set(agents)
    for scenario in SCENARIOS:
        for axis in curves.AXES:
            name = simulator.shipped_name(scenario, axis)
            if name in agents:
                make_rule(name)
