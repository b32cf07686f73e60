"""``--suite speed``: member-steps per second of the twin, and of the stacked real population."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish
from allocgym.real_backend.core import device as devices
from allocgym.real_backend.population import tasks
from allocgym.real_backend.population.stack import Architecture, Stack

ID = "allocgym:allocgym/Population-v0"
MEMBERS, HIDDEN, BATCH = 32, 16, 16
"""Of the stacked networks."""


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


def fastest(function: Callable[[], None], repeats: int) -> float:
    """CPU-seconds of the fastest of several calls, after one that warms up."""
    function()
    best = np.inf
    for _ in range(repeats):
        begun = time.process_time()
        function()
        best = min(best, time.process_time() - begun)
    return float(best)


def real_figures(quick: bool) -> list[Figure]:
    """Measure 32 small networks (64-16-10, minibatches of 16, handwritten digits) on one thread.

    Two loops over members are timed and the faster one is the yardstick: one `torch.nn` module after
    the other with `torch.optim.SGD`, and our own training with a stack of one.
    """
    steps, repeats = (20, 3) if quick else (60, 7)
    device = torch.device("cpu")
    task = tasks.digits(0, 256, 400, device)
    x, y = task.train
    knobs = {
        "learning_rate": np.full(MEMBERS, 0.05),
        "weight_decay": np.full(MEMBERS, 1e-5),
        "momentum": np.full(MEMBERS, 0.9),
    }
    net = Architecture(task.inputs, (HIDDEN,), task.outputs)
    stack = Stack(net, 0, MEMBERS, BATCH, device)
    picks = torch.randint(len(y), (steps, BATCH), generator=torch.Generator().manual_seed(0))
    modules = [
        torch.nn.Sequential(
            torch.nn.Linear(task.inputs, HIDDEN),
            torch.nn.ReLU(),
            torch.nn.Linear(HIDDEN, task.outputs),
        )
        for _ in range(MEMBERS)
    ]
    each = [torch.optim.SGD(m.parameters(), 0.05, momentum=0.9, weight_decay=1e-5) for m in modules]

    def library() -> None:
        for module, optimiser in zip(modules, each, strict=True):
            for pick in picks:
                optimiser.zero_grad()
                torch.nn.functional.cross_entropy(module(x[pick]), y[pick]).backward()
                optimiser.step()

    def alone() -> None:
        for member in range(MEMBERS):
            stack.train(task.train, np.eye(MEMBERS, dtype=np.int64)[member] * steps, knobs)

    def together() -> None:
        stack.train(task.train, np.full(MEMBERS, steps), knobs)

    def exploit() -> None:
        for _ in range(copies):
            stack.copy(donor)

    copies = 200
    donor = np.arange(MEMBERS)
    donor[-MEMBERS // 4 :] = np.arange(MEMBERS // 4)
    with devices.threads(1):
        stacked, loop = fastest(together, repeats), fastest(library, min(repeats, 3))
        ours = fastest(alone, min(repeats, 3))
        copy = fastest(exploit, repeats) / copies
    rate = MEMBERS * steps / stacked
    ratio = min(loop, ours) / stacked
    return [
        Figure(
            "32 stacked small networks / loop over members (CPU time)",
            round(ratio, 2),
            ">= 6",
            ratio >= 6,
            "must",
            f"against torch.nn and torch.optim {loop / stacked:.1f}, "
            f"against a stack of one {ours / stacked:.1f}",
        ),
        Figure("exploit: 8 of 32 members copied, ms", round(1e3 * copy, 4), "< 1", copy < 1e-3),
        Figure("stacked population: member-steps/s", round(rate), "reported", None, "aim"),
    ]


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
        *real_figures(options.quick),
    ]
    return finish("speed", figures, {}, begun, options)
