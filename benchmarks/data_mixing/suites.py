"""Benchmark suites of data mixing."""

from __future__ import annotations

from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.data_mixing"
SUITES = {
    "simulator": Suite(
        f"{_HOME}.simulator:suite",
        "every agent on every scenario (about 25 min on two cores)",
        100,
        30,
    ),
    "fidelity": Suite(
        f"{_HOME}.fidelity:suite", "published figures, RegMix, held-out real runs (about 2 min)"
    ),
    "tables": Suite(
        f"{_HOME}.olmix:suite", "a law fitted to tables of runs, on public ones (under 1 min)"
    ),
    "speed": Suite(f"{_HOME}.speed:suite", "steps per second, one core (about 2 min)"),
    "recipes": Suite(
        f"{_HOME}.recipes:suite", "how to train for real runs (about 20 min on two cores)", 4, 2
    ),
    "real": Suite(
        f"{_HOME}.real:suite", "paired real training runs (about 90 min on two cores)", 10, 2
    ),
    "ray-scaling": Suite(
        f"{_HOME}.ray_scaling:suite", "cells per minute by workers, locally and on Ray"
    ),
    "ray-trainers": Suite(
        f"{_HOME}.ray_trainers:suite",
        "RLlib's PPO beside Stable-Baselines3's, equal steps",
        100,
        30,
    ),
}
