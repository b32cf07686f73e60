"""Benchmark suites of strategy selection."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

SUITES = {
    "strategy": Suite(
        "allocgym.benchmarks.strategy_selection.strategy:suite",
        "IOPDDL B, G and V, generated ones (about 5 min)",
    )
}
