"""Benchmark suites of curve budgets."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

SUITES = {
    "curves": Suite(
        "allocgym.benchmarks.curve_budget.curves:suite",
        "early stopping, TaskSet to train, AlgoPerf to test (2 min)",
        100,
        30,
    )
}
