"""``python -m allocgym.benchmarks.ray_engine --suite NAME``."""

from allocgym.benchmarks.core.main import Suite, main

_HOME = "allocgym.benchmarks.ray_engine"
SUITES = {
    "trainers": Suite(
        f"{_HOME}.trainers:suite",
        "RLlib and Stable-Baselines3, equal steps (about 5 min)",
        100,
        100,
    ),
    "scaling": Suite(f"{_HOME}.scaling:suite", "cells per minute by workers (about 3 min)"),
}

if __name__ == "__main__":
    main("ray_engine", SUITES)
