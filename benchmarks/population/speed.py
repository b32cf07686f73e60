"""``--suite speed``: member-steps per second of the twin, and of the stacked real population."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish

ID = "allocgym:allocgym/Population-v0"


def rate(env: Any, members: int, seconds: float) -> float:
    """Member periods per CPU-second of the fastest of five stretches, resets included."""
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    space = env.single_action_space
    actions = rng.integers(0, space.nvec, (env.num_envs, *space.shape))
    best = 0.0
    for _ in range(5):
        begun, count = time.process_time(), 0
        while (used := time.process_time() - begun) < seconds / 5:
            env.step(actions)
            count += env.num_envs * members
        best = max(best, count / used)
    return best


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seconds = 2.0 if options.quick else 8.0
    twin = rate(gym.make_vec(ID, num_envs=1024), 8, seconds)
    simpy = rate(gym.make_vec(ID, num_envs=16, backend="simpy"), 8, seconds)
    figures = [
        Figure(
            "twin: member-steps/s (1,024 environments x 8 members)",
            round(twin),
            ">= 200,000",
            twin >= 200_000,
        ),
        Figure("SimPy reference: member-steps/s", round(simpy), "reported", None, "aim"),
        Figure("twin / SimPy", round(twin / simpy, 1), "reported", None, "aim"),
        *_real(options.quick),
    ]
    return finish("speed", figures, {}, begun, options)


def _real(quick: bool) -> list[Figure]:
    from allocgym.benchmarks.population.speed_real import real_figures

    return real_figures(quick)
