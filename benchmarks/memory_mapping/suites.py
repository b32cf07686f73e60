"""Benchmark suites of memory mapping."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.memory_mapping"
SUITES = {
    "mapping": Suite(
        f"{_HOME}.mapping:suite", "unseen programs, CPU budgets 0.1 to 60 s (about 10 min)"
    ),
    "speed": Suite(f"{_HOME}.speed:suite", "evaluator and environment (about 1 min)"),
}
