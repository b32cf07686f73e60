"""Benchmark suites of packing."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

SUITES = {
    "packing": Suite(
        "allocgym.benchmarks.packing.packing:suite",
        "MiniMalloc's 11 inputs and generated ones (about 8 min)",
    )
}
