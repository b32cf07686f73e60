"""Benchmark suites of radio slicing."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.prb_slicing"
SUITES = {
    "tractor": Suite(
        f"{_HOME}.tractor:suite", "TRACTOR's nine mixes and score (about 30 min on one core)", 30, 6
    ),
    "sla": Suite(
        f"{_HOME}.sla:suite",
        "constraints at loads 1, 3, 8 on held-out traces (about 60 min)",
        30,
        4,
    ),
    "live": Suite(
        f"{_HOME}.live:suite", "frozen agents on the Linux data plane (about 50 min)", 5, 1
    ),
    "fidelity": Suite(f"{_HOME}.fidelity:suite", "tables, recorded KPIs, SimPy (about 3 min)"),
    "speed": Suite(f"{_HOME}.speed:suite", "steps per second, live control step (about 2 min)"),
}
