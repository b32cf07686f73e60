"""Plans executed for real: gradients to the bit, peaks ordered, plans inside torch.compile."""

import json
import sys

import numpy as np
import pytest

from allocgym.agents.activation_plan.heuristics import RulePlanner
from allocgym.agents.core.agent import rollout
from allocgym.envs.activation_plan.problem import ActivationPlan
from allocgym.envs.core.builder import build, make_backend
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.journal import Journal
from allocgym.simulators.activation_plan.profile import recorded

torch = pytest.importorskip("torch")

from allocgym.benchmarks.core import deployment  # noqa: E402
from allocgym.real_backend.activation_plan import backend as real  # noqa: E402
from allocgym.real_backend.activation_plan import compiled, executor, measure  # noqa: E402
from allocgym.real_backend.activation_plan.backend import TorchPlan  # noqa: E402
from allocgym.real_backend.activation_plan.scenario import PlanScenario  # noqa: E402
from allocgym.real_backend.core.decoder import Decoder  # noqa: E402

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc")
SMALL = {"d": 64, "layers": 2, "vocabulary": 64, "rows": 64}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Decoder(**SMALL)


def gradients(model, plan, seed=0):
    torch.manual_seed(seed)
    tokens = torch.randint(0, 64, (4, 65))
    tier = executor.SlowTier(torch.device("cpu"), 1e12)
    loss = executor.Executor(model, plan, tier).step(tokens)
    return loss, [p.grad.clone() for p in model.parameters()], tier.moved


def test_any_plan_has_the_gradients_of_keep_all(model):
    loss, reference, _ = gradients(model, [0] * 4)
    assert any(g.abs().max() > 0 for g in reference)
    rng = np.random.default_rng(0)
    for plan in [[1] * 4, [2] * 4, *rng.integers(0, 3, (8, 4)).tolist()]:
        other, found, moved = gradients(model, plan)
        assert other == loss
        assert all(torch.equal(a, b) for a, b in zip(found, reference, strict=True)), plan
        assert (moved > 0) == (2 in plan)


def test_other_data_has_other_gradients(model):
    assert not torch.equal(gradients(model, [0] * 4)[1][0], gradients(model, [0] * 4, 1)[1][0])


def test_a_slow_tier_returns_what_it_was_given():
    tier = executor.SlowTier(torch.device("cpu"), 1e12)
    tensors = [torch.randn(3, 5), torch.randn(1000), torch.arange(7)]
    keys = [tier.put(x) for x in tensors]
    for x, key in zip(tensors, keys, strict=True):
        assert torch.equal(tier.get(key), x)


@LINUX
def test_peaks_are_ordered_and_a_lie_about_gradients_would_be_caught(monkeypatch):
    monkeypatch.setitem(measure.MODELS, "tiny", {**SMALL, "rows": 128, "batch": 8})
    got = measure.measure("tiny", [[1] * 4, [2] * 4], repeats=3)
    keep, again, away = (p["peak"] for p in got["plans"])
    assert away < keep and again < keep
    with pytest.raises(AllocgymError, match="4 actions"):
        measure.measure("tiny", [[0, 1]])
    with pytest.raises(AllocgymError, match="no 'gpt'"):
        measure.measure("gpt", [[0]])

    class Answer:
        returncode = 0
        stdout = json.dumps({**got, "plans": [{**got["plans"][0], "equal": False}]})

    monkeypatch.setattr(measure.subprocess, "run", lambda *a, **k: Answer)
    with pytest.raises(AllocgymError, match="gradients of plans"):
        measure.measure("tiny", [[1] * 4])


@LINUX
def test_an_episode_ends_with_a_measured_plan(monkeypatch, tmp_path):
    monkeypatch.setitem(measure.MODELS, "tiny", {**SMALL, "rows": 128, "batch": 8})
    problem = ActivationPlan(n_max=4)
    first = TorchPlan(problem, PlanScenario("tiny", repeats=1))
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(first.fitted))
    scenario = PlanScenario("tiny", profile=str(file), repeats=1)
    backend = TorchPlan(problem, scenario)
    outcomes = rollout(RulePlanner(problem, "recompute-all"), backend, np.array([0]))
    assert not any(o.measured[0] for o in outcomes[:-1]) and outcomes[-1].measured[0]
    assert all(o.valid[0] for o in outcomes)
    assert outcomes[-1].peak[0] > 0 and outcomes[-1].seconds[0] > 0
    assert backend.ledger.left[0] == 0
    with pytest.raises(AllocgymError, match="num_envs"):
        make_backend(problem, "torch", "gpt-narrow", num_envs=2, profile=str(file))
    with pytest.raises(AllocgymError, match="4 groups, 2 rows; raise n_max"):
        TorchPlan(ActivationPlan(n_max=2), scenario)
    file.write_text("{}")
    with pytest.raises(AllocgymError, match="is not a calibration"):
        TorchPlan(problem, scenario)


def fake_measure(model, plans, repeats, rate, device):
    """Seconds by hand: 1 for keeping all, 0.1 more for each group that is not kept."""
    every = [[0] * len(plans[0]), *plans]
    return {"plans": [{"seconds": 1 + 0.1 * sum(a > 0 for a in p), "peak": 5.0} for p in every]}


@pytest.mark.parametrize(("name", "actions"), [("recompute-all", {1}), ("keep-all", {0})])
def test_the_agent_decides_where_nothing_has_been_measured_yet(
    monkeypatch, tmp_path, name, actions
):
    monkeypatch.setattr(real, "measure", fake_measure)
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(recorded("gpt-narrow")))
    arguments = {
        "problem": "activation-plan",
        "agent": name,
        "backend": "torch",
        "scenario": "gpt-gpu",
        "seed": 0,
        "fallback": "recompute-all" if name == "keep-all" else "keep-all",
        "max_change": None,
        "max_seconds": None,
        "max_cost": None,
        "shadow": None,
        "overrides": {"profile": str(file), "budget": 1.0},
    }
    said = []
    deployment.run(tmp_path / "run", arguments, said.append)
    assert not [line for line in said if "guard" in line]
    with Journal.reading(tmp_path / "run" / "journal.jsonl") as journal:
        rows = journal.entries
    picks = {p for r in rows if r["kind"] == "decision" for p in r["data"]["pick"]["data"]}
    assert picks == actions


def test_a_measurement_that_failed_is_not_valid(monkeypatch, tmp_path):
    monkeypatch.setattr(
        real,
        "measure",
        lambda *a: {"plans": [{"seconds": 1.0, "peak": 0}, {"seconds": 0.0, "peak": 0}]},
    )
    file = tmp_path / "profile.json"
    file.write_text(json.dumps(recorded("gpt-narrow")))
    backend = build("activation-plan", "torch", "gpt-narrow", profile=str(file))
    outcomes = rollout(RulePlanner(backend.problem, "recompute-all"), backend, np.array([0]))
    assert [bool(o.valid[0]) for o in outcomes] == [True] * (len(outcomes) - 1) + [False]
    assert not outcomes[-1].measured[0]


def test_the_solver_keeps_to_the_memory_and_refuses_offloading(monkeypatch):
    monkeypatch.setattr(compiled, "seconds", lambda node: node)
    solver = compiled.PriorityKnapsack()
    memory, times = [0.4, 0.3, 0.2, 0.1], [1.0, 3.0, 0.1, 0.4]
    saved, again = solver(memory, None, 0.5, None, times)
    assert sum(memory[i] for i in saved) <= 0.5 and 1 in saved
    assert sorted(saved + again) == [0, 1, 2, 3]

    def choose(memory, times, most):
        return [0], [3]

    with pytest.raises(AllocgymError, match="save and"):
        compiled.PriorityKnapsack(choose=choose)(memory, None, 0.5, None, times)
    kept = compiled.PriorityKnapsack(choose=choose, offload="save")(memory, None, 0.5, None, times)
    assert kept[0] == [0, 3]


def test_selective_checkpointing_and_plan_files(tmp_path):
    from torch.utils.checkpoint import checkpoint

    layer = torch.nn.Linear(8, 8)
    x = torch.randn(4, 8, requires_grad=True)
    save = compiled.selective_contexts(["aten.addmm.default"])
    checkpoint(lambda v: layer(v).tanh(), x, use_reentrant=False, context_fn=save).sum().backward()
    found = x.grad.clone()
    x.grad = None
    layer(x).tanh().sum().backward()
    assert torch.equal(found, x.grad)
    compiled.export(tmp_path / "p.json", "tiny", [0, 1, 2], budget=5)
    assert compiled.load(tmp_path / "p.json") == [0, 1, 2]
    with pytest.raises(AllocgymError, match="plan"):
        compiled.load(tmp_path / "none.json")


def test_the_trained_policy_chooses_for_the_compiler():
    from allocgym.agents.activation_plan.rule import choose_saved

    memory = [0.1, 0.2, 0.3, 0.4]
    saved, offloaded = choose_saved(memory, [0.4, 0.1, 0.3, 0.2], 0.5)
    assert sorted({*saved, *offloaded}) == sorted([*saved, *offloaded])
    assert sum(memory[i] for i in saved) <= 0.5 + 1e-9
    solver = compiled.PriorityKnapsack(choose=choose_saved, offload="recompute")
    assert choose_saved([], [], 0.5) == ([], []) and solver.uuid() is None
