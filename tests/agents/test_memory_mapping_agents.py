"""Agents of memory mapping: feasible, bounded, reproducible; files; solvers of the side problems."""

from pathlib import Path

import numpy as np
import pytest

from allocgym.agents.core import agent_file, catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.training import train
from allocgym.agents.memory_mapping import exact, solver
from allocgym.agents.memory_mapping import order as orders
from allocgym.agents.memory_mapping.priority import Priorities
from allocgym.agents.strategy_selection import forest as forests
from allocgym.benchmarks.core.evaluation import compare
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import saved, validate
from allocgym.envs.memory_mapping.problem import MemoryMapping
from allocgym.envs.strategy_selection.instance import evaluate, from_json
from allocgym.simulators.memory_mapping.program import device, instances, resnet, unet
from allocgym.simulators.memory_mapping.scenario import SCENARIOS

SMALL = [(p, device(p, f)) for p in (unet(32, 16, 2), resnet(28, 16, 2, 1)) for f in (0.3, 0.6)]


@pytest.mark.parametrize("order", [False, True])
@pytest.mark.parametrize("name", ["drop-all", "myopic", "random", "first-fit", "xla", "priorities"])
def test_agents_play_whole_batches(name, order):
    if name == "priorities":
        pytest.importorskip("torch")
    backend = build("memory-mapping", "twin", "train", 4, order=order)
    last = rollout(catalogue.make(name, backend.problem), backend, np.arange(4))[-1]
    assert last.done.all() and backend.ledger.left.sum() == 0
    got = 1 - last.board.seconds / last.instance.all_slow
    if name == "drop-all" and not order:
        assert (got == 0).all()
    elif name not in ("random", "drop-all"):
        assert (got > 0.02).all()


def test_the_order_game_pays_what_the_order_pays():
    backend = build("memory-mapping", "twin", "test", 3, order=True)
    last = rollout(catalogue.make("xla", backend.problem), backend, np.arange(3))[-1]
    for row, which in enumerate(backend.state.chosen):
        p, d = backend.pairs[which]
        expected = Game(p, d).order(orders.xla(p, d))
        assert 1 - last.board.seconds[row] / last.instance.all_slow[row] == pytest.approx(expected)


@pytest.mark.parametrize("which", range(len(SMALL)))
def test_every_solver_is_valid_and_under_the_bound(which):
    program, chip = SMALL[which]
    limit = exact.relaxation(program, chip)
    policy = Priorities(np.eye(len(orders.FEATURES))[:3])
    found = {}
    for name in solver.SOLVERS:
        if name == "cp-sat":
            pytest.importorskip("ortools")
        got = solver.solve(name, program, chip, 0.05, learned=policy)
        validate(program, chip, got.plan)
        assert saved(program, chip, got.plan) == pytest.approx(got.saved, abs=1e-9)
        assert got.saved <= limit + 1e-6
        if got.bound is not None:
            assert max(v for v in found.values()) <= got.bound + 1e-6
        found[name] = got.saved
    greedy = max(found[n] for n in orders.GREEDY)
    assert found["best-of"] >= max(greedy, found["learned"]) - 1e-12
    assert found["order-climb"] >= greedy - 1e-12
    assert found["learned+climb"] >= found["best-of"] - 1e-12


def test_a_climb_is_reproducible_by_evaluations():
    program, chip = SMALL[0]
    runs = [
        orders.climb(Game(program, chip), [orders.xla(program, chip)], 1e9, 3, evaluations=60)
        for _ in range(2)
    ]
    assert runs[0].saved == runs[1].saved and runs[0].tried == 60
    assert Game(program, chip).order(runs[0].order) == runs[0].saved


def test_one_command_trains_an_agent_file(tmp_path):
    pytest.importorskip("cma")
    pytest.importorskip("torch")
    file = tmp_path / "agent.zip"
    problem, arguments = MemoryMapping(order=True), {"members": 2, "fractions": [0.5]}
    one = train("memory-mapping", file, "train", "cma", 2, 0, arguments)
    weights = Priorities.load(file, problem).weights
    train("memory-mapping", tmp_path / "again.zip", "train", "cma", 2, 0, arguments)
    again = Priorities.load(tmp_path / "again.zip", problem).weights
    np.testing.assert_array_equal(weights, again)
    assert one["members"] == 2 and np.isfinite(one["gain_over_xla"])
    agent = catalogue.make(file, problem)
    assert agent.name == "agent"


def test_the_shipped_agent_beats_xla_on_most_unseen_programs():
    pytest.importorskip("torch")
    policy = Priorities.load(solver.PRETRAINED / "priorities.zip", MemoryMapping())
    wins = losses = 0
    for p, d in instances(SCENARIOS["test"])[::4]:
        game = Game(p, d)
        gain = game.order(policy.order(p, d)) - game.order(orders.xla(p, d))
        wins, losses = wins + (gain > 1e-4), losses + (gain < -1e-4)
    assert wins > losses


def test_unknown_names_are_told():
    with pytest.raises(AllocgymError, match="Did you mean 'xla'"):
        catalogue.make("xlaa", MemoryMapping())
    with pytest.raises(AllocgymError, match="solver"):
        solver.solve("nobody", *SMALL[0])
    with pytest.raises(AllocgymError, match="weights"):
        Priorities(np.zeros(2))
    with pytest.raises(AllocgymError, match="no file"):
        catalogue.make(Path("nowhere.zip"), MemoryMapping())


def test_strategy_selection_finds_the_best_of_a_small_problem():
    rng = np.random.default_rng(0)
    n, k = 6, 3
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5)]
    data = {
        "name": "small",
        "usage_limit": 12,
        "nodes": {
            "intervals": [[i, i + 3] for i in range(n)],
            "costs": rng.integers(0, 30, (n, k)).tolist(),
            "usages": rng.integers(1, 8, (n, k)).tolist(),
        },
        "edges": {"nodes": pairs, "costs": rng.integers(0, 30, (len(pairs), k * k)).tolist()},
    }
    problem = from_json(data)
    options = np.stack(np.meshgrid(*[range(k)] * n), -1).reshape(-1, n)
    scored = [evaluate(problem, c) for c in options]
    feasible = [v for v, peak in scored if peak <= problem.limit]
    choice, cost, _ = forests.descend(problem, 0.6)
    assert choice is not None
    value, peak = evaluate(problem, choice)
    assert value == cost and peak <= problem.limit
    assert min(feasible) <= cost <= np.quantile(feasible, 0.1)
    with pytest.raises(AllocgymError, match="strategy problem"):
        from_json({"nodes": 1})


def test_evaluate_lets_each_agent_play_the_game_it_is_made_for():
    pytest.importorskip("torch")
    found = compare("memory-mapping", "train", ["drop-all", "first-fit", "segments"], 3).scores
    saved = {name: figures["saved (%)"] for name, figures in found.items()}
    assert (saved["drop-all"] == 0).all()
    assert (saved["segments"] > 2).all()
    backend = build("memory-mapping", "twin", "train", 3, order=True)
    last = rollout(catalogue.make("first-fit", backend.problem), backend, np.arange(3))[-1]
    np.testing.assert_array_equal(saved["first-fit"], last.saved)


def test_a_file_of_other_features_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    file, problem = tmp_path / "a.zip", MemoryMapping()
    weights = {"weights": torch.zeros(1, len(orders.FEATURES))}
    agent_file.save(file, problem, Priorities.kind, {"features": ["size"]}, weights)
    with pytest.raises(AllocgymError, match="other features"):
        catalogue.make(file, problem)
