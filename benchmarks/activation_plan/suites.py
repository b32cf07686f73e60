"""Benchmark suites of activation plans."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.activation_plan"
SUITES = {
    "activation": Suite(
        f"{_HOME}.activation:suite",
        "plans against torch's and simple rules, for real (about 8 min)",
    ),
    "real": Suite(f"{_HOME}.activation:real", "20 random plans a model on a CPU (about 6 min)"),
    "gpu": Suite(f"{_HOME}.gpu:suite", "copies, random plans, GPT-2 124M on CUDA (not run here)"),
}
