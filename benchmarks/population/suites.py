"""Benchmark suites of populations."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.population"
SUITES = {
    "toys": Suite(f"{_HOME}.toys:suite", "PBT's toy and the deceptive one (10 s)"),
    "laws": Suite(
        f"{_HOME}.laws:suite", "Multi-Power Law on public curves, stability edge (2 min)"
    ),
    "simulator": Suite(
        f"{_HOME}.simulator:suite", "every scheduler on every scenario (about 6 min)", 100, 30
    ),
    "real": Suite(
        f"{_HOME}.real:suite", "frozen controller on real populations (about 4 min)", 10, 2
    ),
    "tasks": Suite(
        f"{_HOME}.tasks:suite",
        "which tasks to train on; what a larger model scores (2 min)",
        100,
        20,
    ),
    "speed": Suite(f"{_HOME}.speed:suite", "steps per second, one core (1 min)"),
}
