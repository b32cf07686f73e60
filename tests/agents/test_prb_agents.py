"""Agents of radio slicing: every one keeps the rules; files round-trip; bounds bound."""

import itertools

import numpy as np
import pytest

import allocgym  # noqa: F401
from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.training import train
from allocgym.agents.prb_slicing import heuristics as rules
from allocgym.envs.core.builder import build, make_backend, make_problem
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError, CorruptFileError

NAMES = catalogue.names("prb-slicing")


def cell(num_envs=3, **arguments):
    return make_backend(
        make_problem("prb-slicing"),
        "twin",
        num_envs=num_envs,
        **{"mix": "123", "horizon": 10, "load": 3.0, **arguments},
    )


def total(name, seeds=4, **arguments):
    made = cell(seeds, **arguments)
    agent = catalogue.make(name, made.problem)
    made.reset(np.arange(seeds))
    agent.begin(made.spec)
    agent.peek(made)
    agent.tell(made.outcome)
    score = 0.0
    while not made.outcome.done.all():
        agent.tell(made.spend(agent.ask()))
        score = score + agent.memory.sla
    return score


@pytest.mark.parametrize("name", NAMES)
def test_every_decision_keeps_the_rules(name):
    if name == "learned" or name.startswith("tractor"):
        pytest.importorskip("torch")
    made = cell()
    agent = catalogue.make(name, made.problem)
    outcomes = rollout(agent, made, np.arange(3))
    for o in outcomes[1:]:
        made.problem.check(Shares(o.units), agent.memory)
    assert outcomes[-1].done.all()


@pytest.mark.parametrize(
    "name",
    [
        "equal",
        "demand-proportional",
        "urllc-first",
        "max-weight",
        "backlog-proportional",
        "drift-plus-penalty",
        "pi-hysteresis",
        "learned",
    ],
)
def test_agents_take_any_number_of_slices(name):
    if name == "learned":
        pytest.importorskip("torch")
    problem = make_problem("prb-slicing", n_max=6)
    made = make_backend(
        problem, "twin", num_envs=2, slices=["embb", "urllc", "mmtc", "embb", "urllc"], horizon=4
    )
    agent = catalogue.make(name, problem)
    for o in rollout(agent, made, np.arange(2))[1:]:
        problem.check(Shares(o.units), agent.memory)
        assert not o.units[:, 5].any()


def test_a_random_walk_moves_one_group_at_most():
    made = cell()
    outcomes = rollout(catalogue.make("random", made.problem), made, np.arange(3))
    for a, b in itertools.pairwise(outcomes):
        assert (np.abs(b.units - a.units).sum(1) <= 2).all()
    assert any((b.units != a.units).any() for a, b in itertools.pairwise(outcomes))


def test_demand_goes_where_the_need_is():
    made = cell(1)
    agent = catalogue.make("demand-proportional", made.problem)
    rollout(agent, made, np.array([0]))
    agent.memory.need[:] = (1.0, 10.0, 39.0)
    np.testing.assert_array_equal(agent.ask().units, [[1, 3, 13]])


def test_urllc_is_first():
    made = cell(1)
    agent = catalogue.make("urllc-first", made.problem)
    rollout(agent, made, np.array([0]))
    agent.memory.need[:] = agent.memory.average[:] = (3.0, 30.0, 500.0)
    units = agent.ask().units[0]
    assert units[1] == int(np.ceil(1.3 * 30 / (50 / 17))) and units.sum() == 17


def test_clairvoyant_greedy_bounds_the_others():
    best = total("clairvoyant-greedy").mean()
    for name in ("equal", "demand-proportional", "urllc-first", "expert"):
        assert total(name).mean() <= best + 1e-9


def test_clairvoyance_needs_the_twin():
    made = make_backend(make_problem("prb-slicing"), "simpy", horizon=2)
    made.reset(np.array([0]))
    with pytest.raises(AllocgymError, match="twin"):
        catalogue.make("clairvoyant-greedy", made.problem).peek(made)


def test_static_splits_are_checked():
    problem = make_problem("prb-slicing")
    with pytest.raises(AllocgymError, match="static-3-5-9"):
        catalogue.make("static-a-b-c", problem)
    made = cell(1)
    with pytest.raises(AllocgymError, match="17 groups"):
        rollout(rules.Static(problem, np.array([3, 5, 8])), made, np.array([0]))


def test_an_unknown_agent_is_named():
    with pytest.raises(AllocgymError, match="Did you mean 'expert'"):
        catalogue.make("expertt", make_problem("prb-slicing"))


@pytest.mark.parametrize("trainer", ["dqn", "table", "ppo"])
def test_training_writes_a_file_that_plays(trainer, tmp_path, monkeypatch):
    pytest.importorskip("stable_baselines3")
    if trainer == "ppo":
        from allocgym.agents.core import sb3

        real = sb3.train_ppo
        monkeypatch.setattr(
            sb3, "train_ppo", lambda env, steps, *a, **k: real(env, 512 * 32, *a, **k)
        )
    path = tmp_path / "agent.zip"
    train("prb-slicing", path, "generated", trainer, 1, arguments={"horizon": 8, "mix": "111"})
    made = cell(mix="111")
    agent = catalogue.make(path, made.problem)
    for o in rollout(agent, made, np.arange(3))[1:]:
        made.problem.check(Shares(o.units), agent.memory)


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "x.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(CorruptFileError):
        catalogue.make(path, make_problem("prb-slicing"))


@pytest.mark.parametrize("name", ["tractor-dqn", "tractor-table"])
def test_an_agent_of_three_slices_says_so(name):
    pytest.importorskip("torch")
    with pytest.raises(AllocgymError, match="3 slices expected, given 5 rows"):
        catalogue.make(name, make_problem("prb-slicing", n_max=5))


def test_a_table_that_would_fill_memory_is_refused(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(AllocgymError, match="slices: a table of at most"):
        slices = ["embb", "urllc", "mmtc", "embb", "urllc"]
        train("prb-slicing", tmp_path / "x.zip", trainer="table", arguments={"slices": slices})


@pytest.mark.parametrize("given", [{}, {"tractor_compat": True}, {"actions": "splits"}])
def test_agents_play_in_every_problem_of_theirs(given):
    pytest.importorskip("torch")
    for name in ("learned", "tractor-dqn", "tractor-table", "demand-proportional"):
        made = build("prb-slicing", "twin", "generated", 2, horizon=3, **given)
        again = build("prb-slicing", "twin", "generated", 2, horizon=3)
        agents = [catalogue.make(name, b.problem) for b in (made, again)]
        runs = [rollout(a, b, np.arange(2)) for a, b in zip(agents, (made, again), strict=True)]
        assert all(a == b for a, b in zip(*runs, strict=True))
