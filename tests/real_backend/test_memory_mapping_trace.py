"""Recording a model: sizes, FLOPs, lifetimes and aliases by hand; the environments read the file."""

import json
import sys

import gymnasium as gym
import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

from allocgym.benchmarks.commands import app  # noqa: E402
from allocgym.benchmarks.core.evaluation import compare  # noqa: E402
from allocgym.benchmarks.core.options import Options  # noqa: E402
from allocgym.benchmarks.memory_mapping import mapping  # noqa: E402
from allocgym.envs.core.errors import AllocgymError  # noqa: E402
from allocgym.envs.memory_mapping.program import from_trace  # noqa: E402
from allocgym.real_backend.memory_mapping import trace  # noqa: E402

MODULE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)), torch.zeros(5, 8)

def wrong():
    return 3
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "traced_model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "traced_model:build"
    sys.modules.pop("traced_model", None)


def test_a_forward_pass_is_recorded_as_it_is(module):
    found = trace.record(module)
    program = from_trace(found, "x")
    by_name = {x.name: x for x in program.tensors}
    weights = sorted(x.size for x in program.tensors if x.born < 0)
    assert weights == sorted(4 * n for n in (8 * 16, 16, 16 * 4, 4, 5 * 8))
    # Both products, and an operation per element of the ReLU.
    assert sum(o.flops for o in program.ops) == 2 * 5 * (8 * 16 + 16 * 4) + 5 * 16
    last = [x for x in program.tensors if x.output]
    assert len(last) == 1 and last[0].size == 4 * 5 * 4
    assert not any(name in by_name for name in found["alias"]), "views are no buffers of their own"


def test_a_training_step_holds_forward_and_backward(module):
    forward, both = (from_trace(trace.record(module, m), m) for m in trace.MODES)
    assert len(both.ops) > len(forward.ops)
    grads = sorted(x.size for x in both.tensors if x.output)
    for size in (4 * 8 * 16, 4 * 16, 4 * 16 * 4, 4 * 4):
        assert size in grads, "gradients of every parameter are outputs"
    products = 2 * 5 * (8 * 16 + 16 * 4)
    # Backward: the weight of both layers, the input of the second (the first needs none).
    assert sum(o.flops for o in both.ops) >= 2 * products + 2 * 5 * 16 * 4


@pytest.mark.parametrize("mode", trace.MODES)
def test_convolutions_and_branches_are_understood(mode):
    model, inputs = trace.residual_network(4, 16)
    program = from_trace(trace.program(model, inputs, mode), "r")
    assert max(len(x.uses) for x in program.tensors) >= 2
    assert all(u > x.born for x in program.tensors for u in x.uses)
    one = 2 * 16 * 16 * 4 * 4 * 9
    assert max(o.flops for o in program.ops) == (one if mode == "forward" else 2 * one)


def test_a_recorded_file_is_played_evaluated_and_benchmarked(module, tmp_path):
    out = tmp_path / "mine.json"
    done = CliRunner().invoke(
        app, ["trace", "memory-mapping", module, "--out", str(out), "--mode", "training"]
    )
    assert done.exit_code == 0 and "buffers" in done.output
    assert json.loads(out.read_text())["mode"] == "training"
    env = gym.make("allocgym:allocgym/MemoryMapping-v0", scenario=str(out))
    env.reset(seed=0)
    total, over = 0.0, False
    while not over:
        masks = env.unwrapped.action_masks()
        _, reward, over, _, _ = env.step(int(np.flatnonzero(masks)[-1]))
        total += reward
    assert total <= 1
    found = compare("memory-mapping", str(out), ["size"], 2)
    assert found.scenario == str(out) and {"xla", "size"} <= set(found.scores)
    cells = mapping.plan_cells(Options(1, cases=[str(out), "0.1"], agents=["size"]))
    mine = [c for c in cells if c["scenario"] == str(out)]
    assert mine and all(c["sha256"] for c in mine) and mapping.cell(mine[1])["valid"]


def test_mistakes_are_told_in_a_sentence(module):
    for call, message in (
        (lambda: trace.record("nobody"), "module:callable or one of"),
        (lambda: trace.record("no.such:thing"), "cannot be imported"),
        (lambda: trace.record("traced_model:wrong"), "has to return"),
        (lambda: trace.record(module, "backward"), "forward or training"),
        (lambda: mapping.subject(Options(1, cases=["a.json", "b.json"])), "one recorded program"),
    ):
        with pytest.raises(AllocgymError, match=message):
            call()
    told = CliRunner().invoke(app, ["trace", "packing", "x"])
    assert isinstance(told.exception, AllocgymError) and "memory-mapping have" in str(
        told.exception
    )
