"""``--suite speed``: environment steps per second on one core; a control step on the live plane."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

from allocgym.agents.core import catalogue
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.rates import rate
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Shares
from allocgym.real_backend.prb_slicing.linux import probe

ID = "allocgym:allocgym/PRBSlicing-v0"
SETTING: dict[str, Any] = {"scenario": "generated", "mix": "334", "horizon": 120}
"""Ten users in a cell: 3 mMTC, 3 URLLC, 4 eMBB."""


def vector_rate(num_envs: int, seconds: float, **arguments: Any) -> float:
    """Steps per CPU-second of the vector environment under the expert's split."""
    env: Any = gym.make_vec(ID, num_envs=num_envs, **{**SETTING, **arguments}).unwrapped
    env.reset(seed=0)
    units = np.tile([2, 6, 9], (num_envs, 1))
    actions = env.problem.action_of(Shares(units), env.memory)

    def step() -> int:
        for _ in range(8):
            env.step(actions)
        return 8 * num_envs

    return rate(step, seconds)


def scalar_rate(backend: str, seconds: float) -> float:
    """Steps per CPU-second of the scalar environment, resets included."""
    env: Any = gym.make(ID, backend=backend, **SETTING).unwrapped
    env.reset(seed=0)
    action = env.problem.action_of(Shares(np.array([[2, 6, 9]])), env.memory)[0]

    def step() -> int:
        for _ in range(25):
            if env.step(action)[2]:
                env.reset()
        return 25

    return rate(step, seconds)


def live_steps(periods: int) -> dict[str, Any]:
    """Median ms of reading, deciding and applying on the Linux plane; or why it is missing."""
    found = probe()
    if "missing" in found:
        return found
    cell: Any = build("prb-slicing", "linux", "generated", mix="334", period=100.0, horizon=periods)
    agent = catalogue.make("demand-proportional", cell.problem)
    outcome = cell.reset(np.array([0]))
    agent.begin(cell.spec)
    agent.tell(outcome)
    decided = []
    while not outcome.done.all():
        begun = time.perf_counter()
        decision = agent.ask()
        thought = time.perf_counter() - begun
        outcome = cell.spend(decision)
        begun = time.perf_counter()
        agent.tell(outcome)
        decided.append(1e3 * (thought + time.perf_counter() - begun))
    cell.close()
    spent = np.array(cell.control_ms)
    whole = spent.sum(1) + np.array(decided)
    return {
        "median": float(np.median(whole)),
        "p99": float(np.quantile(whole, 0.99)),
        "apply": float(np.median(spent[:, 0])),
        "read": float(np.median(spent[:, 1])),
        "decide": float(np.median(decided)),
        **found,
    }


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seconds = 3.0 if options.quick else 10.0
    fast = vector_rate(1024, seconds, dtype="float32")
    double = vector_rate(1024, seconds)
    many = vector_rate(1024, seconds, dtype="float32", mix="10-10-10", width=20.0)
    simpy, scalar = scalar_rate("simpy", seconds), scalar_rate("twin", seconds)
    live = live_steps(60 if options.quick else 200)
    show(
        "speed, one core (CPU-seconds)",
        ["what", "steps/s"],
        [
            ["twin, 1,024 cells, 10 users a cell, float32", f"{fast:,.0f}"],
            ["the same, float64", f"{double:,.0f}"],
            ["10 users a slice (30 a cell), 20 MHz, float32", f"{many:,.0f}"],
            ["scalar, SimPy", f"{simpy:,.0f}"],
            ["scalar, twin", f"{scalar:,.0f}"],
        ],
    )
    median = live.get("median")
    figures = [
        Figure(
            "twin env-steps/s, 1,024 cells x 3 slices, 10 users a cell",
            round(fast),
            ">= 50,000",
            fast >= 50_000,
            detail="float32",
        ),
        Figure("SimPy env-steps/s", round(simpy), ">= 200", simpy >= 200),
        Figure("twin over SimPy", round(fast / simpy, 1), "printed", True),
        Figure(
            "live control step, median ms",
            median and round(median, 2),
            "< 10",
            None if median is None else median < 10,
            detail=str(live),
        ),
    ]
    results = {"float64": double, "30 users": many, "scalar twin": scalar, "live": live}
    return finish("speed", figures, results, begun, options)
