"""``--suite speed``: allocations, environment steps and real rollouts per CPU-second, one core."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

from allocgym.agents.rollout_budget.agent import make_rule
from allocgym.agents.rollout_budget.allocator import RuleAllocator
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.rates import rate
from allocgym.benchmarks.core.suite import Figure, finish, show

ID = "allocgym:allocgym/RolloutBudget-v0"


def allocation(rule: str, prompts: int = 512, budget: int = 4096) -> float:
    """Least CPU-milliseconds of one allocation."""
    made = RuleAllocator(make_rule(rule), high=64)
    rng = np.random.default_rng(0)
    ids = np.arange(prompts)
    n = np.full(prompts, budget // prompts)
    for _ in range(3):
        made.observe(ids, n, rng.binomial(n, rng.beta(0.35, 0.68, prompts)), tokens=n * 9)
    times = []
    for _ in range(12):
        begun = time.process_time()
        counts = made.allocate(ids, budget)
        times.append(time.process_time() - begun)
        assert counts.sum() == budget
    return 1e3 * min(times)


def vector(seconds: float, **arguments: Any) -> float:
    """Environment steps per CPU-second of the vector environment, resets included."""
    env: Any = gym.make_vec(ID, num_envs=1024, **arguments)
    env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-0.3, 0.3, (1024, 10)).astype(np.float32)

    def step() -> int:
        for _ in range(30):
            env.step(actions)
        return 30 * 1024

    return rate(step, seconds)


def scalar(backend: str, seconds: float) -> float:
    """Steps per CPU-second of the scalar environment, resets included."""
    env = gym.make(ID, backend=backend)
    env.reset(seed=0)
    action = np.zeros(10, np.float32)

    def step() -> int:
        for _ in range(30):
            if env.step(action)[2]:
                env.reset()
        return 30

    return rate(step, seconds)


def real(updates: int) -> tuple[float, float]:
    """Rollouts per CPU-second of the real model: sampling with verification, and whole updates."""
    from allocgym.envs.core.builder import make_backend, make_problem
    from allocgym.envs.core.contracts import Shares

    problem: Any = make_problem("rollout-budget", n_max=64, mode="per_prompt")
    backend: Any = make_backend(
        problem,
        "real",
        scenario="easy",
        device="cpu",
        horizon=updates + 1,
        evaluate_every=10_000,
        warm_steps=100,
    )
    backend.reset(np.array([0]))
    even = Shares(np.full((1, 64), 8))
    backend.spend(even)
    whole = []
    for _ in range(updates - 1):
        begun = time.process_time()
        backend.spend(even)
        whole.append(time.process_time() - begun)
    sampled = []
    for _ in range(3):
        begun = time.process_time()
        backend.evaluate()
        sampled.append(time.process_time() - begun)
    held = len(backend.world.held_cell) * backend.scenario.samples
    return held / min(sampled), 512 / float(np.median(whole))


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seconds = 2.0 if options.quick else 8.0
    greedy, knapsack = allocation("posterior-greedy"), allocation("knapsack-published")
    single, double = vector(seconds, dtype="float32"), vector(seconds)
    simpy, twin = scalar("simpy", seconds / 2), scalar("twin", seconds / 2)
    sampling, training = real(4 if options.quick else 12)
    show(
        "speed, one core (CPU-seconds)",
        ["what", "figure"],
        [
            ["twin, bins, 1,024 environments, float32", f"{single:,.0f} steps/s"],
            ["the same, float64", f"{double:,.0f} steps/s"],
            ["scalar, SimPy", f"{simpy:,.0f} steps/s"],
            ["scalar, twin", f"{twin:,.0f} steps/s"],
            ["real model, sampling and verifying", f"{sampling:,.0f} rollouts/s"],
            ["real model, whole updates", f"{training:,.0f} rollouts/s"],
        ],
    )
    worst = max(greedy, knapsack)
    figures = [
        Figure(
            "4,096 rollouts over 512 prompts, CPU-ms",
            round(worst, 2),
            "< 10",
            worst < 10,
            "must",
            f"posterior-greedy {greedy:.1f}, published knapsack {knapsack:.1f}",
        ),
        Figure(
            "twin (bins, 1,024 envs) env-steps/s",
            round(single),
            ">= 500,000",
            single >= 5e5,
            "must",
            f"float32; float64 {double:,.0f}",
        ),
        Figure("SimPy reference steps/s", round(simpy), ">= 500", simpy >= 500),
        Figure("twin / SimPy", round(single / simpy, 1), "printed", True),
        Figure(
            "real model, rollouts per CPU-second",
            round(sampling),
            ">= 1,000",
            sampling >= 1000,
            "must",
            f"sampling and verifying; whole updates {training:,.0f}",
        ),
    ]
    return finish("speed", figures, {"scalar twin": twin, "updates": training}, begun, options)
