"""Benchmark suites of rollout budgets."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.rollout_budget"
SUITES = {
    "replay": Suite(f"{_HOME}.replay:suite", "gradient ratios on recorded trajectories (1 min)"),
    "simulator": Suite(
        f"{_HOME}.simulator:suite",
        "every allocator on every preset (about 20 min on two cores)",
        100,
        20,
    ),
    "fidelity": Suite(
        f"{_HOME}.fidelity:suite",
        "held-out prompts and recorded runs against the simulator (4 min)",
    ),
    "real": Suite(
        f"{_HOME}.real:suite", "paired GRPO runs on this machine (about 90 min on two cores)", 10, 2
    ),
    "search": Suite(
        f"{_HOME}.search:suite",
        "prompts solved at a fixed number of rollouts (about 3 min)",
        100,
        20,
    ),
    "algebra": Suite(f"{_HOME}.algebra:suite", "exactness and conservation (about 1 min)"),
    "speed": Suite(f"{_HOME}.speed:suite", "steps and rollouts per CPU-second (about 1 min)"),
}
