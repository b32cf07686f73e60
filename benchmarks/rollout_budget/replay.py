"""``--suite replay``: both gradient ratios of every allocator on recorded trajectories.

Open loop: the smoothed success rates of 900 prompts of a real run are the truth, whatever is decided.
Nothing is learned here; the table says what an allocator does to groups, not what that is worth.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget import catalogue
from allocgym.agents.rollout_budget.agent import make_rule
from allocgym.agents.rollout_budget.allocator import Context, RuleAllocator
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.envs.core import randomness
from allocgym.envs.rollout_budget import algebra
from allocgym.simulators.core import public_data
from allocgym.simulators.rollout_budget import recorded

ROWS, GROUP = 128, 8
WARM = 2
"""Epochs before counting, so that every estimator has seen every prompt."""


def smoothed(accuracy: np.ndarray, half: int = 4) -> np.ndarray:
    """Moving average over 2 half + 1 visits, kept off 0 and 1 by a Jeffreys pseudo-count."""
    visits = accuracy.shape[1]
    out = np.empty_like(accuracy)
    for t in range(visits):
        window = accuracy[:, max(t - half, 0) : t + half + 1]
        out[:, t] = window.mean(1)
    return out


def replay(name: str, truth: np.ndarray, seed: int = 0, least: int = 1) -> dict[str, Any]:
    """Run one allocator through the recorded epochs.

    Args:
        name: rule; ``"oracle"`` and ``"oracle-knapsack"`` know the truth.
        truth: ``(prompts, visits)`` success rates.
        seed: of the order and the rollouts.
        least: rollouts of an offered prompt at least (1; selectors need 0 and get it).
    """
    prompts, visits = truth.shape
    known = name.startswith("oracle")
    rule = None if known else make_rule(name)
    allocator = None if rule is None else RuleAllocator(rule, low=0, seed=seed)
    rounds = 1 if rule is None else rule.rounds
    state = randomness.stream(np.array([seed]), "replay", prompts)[:, 0]
    steps = prompts // ROWS
    sums = np.zeros(7)
    largest = 0
    for visit in range(visits):
        order = np.random.default_rng([seed, visit]).permutation(prompts)
        for s in range(steps):
            ids = order[s * ROWS : (s + 1) * ROWS]
            p = truth[ids, visit]
            tried, right = np.zeros(ROWS, np.int64), np.zeros(ROWS, np.int64)
            for r in range(rounds):
                budget = ROWS * GROUP // rounds
                step = visit * steps + s
                if allocator is None:
                    gains = algebra.known_gains(p, 128)
                    if name == "oracle-knapsack":
                        gains = gains * (p * (1 - p) ** 2)[:, None]
                    n = algebra.greedy(gains[None], budget, least, 128)[0]
                else:
                    n = allocator.allocate(ids, budget, Context(step, steps * visits, r, rounds))
                u = np.stack(
                    [
                        randomness.uniform(state[ids], visit * 512 + j)
                        for j in range(int((tried + n).max()))
                    ]
                )
                j = np.arange(len(u))[:, None]
                hits = ((u < p) & (j >= tried) & (j < tried + n)).sum(0)
                if allocator is not None:
                    allocator.observe(ids, n, hits, final=r + 1 == rounds)
                tried, right = tried + n, right + hits
            if visit < WARM:
                continue
            mixed = (right > 0) & (right < tried)
            hard = p < 0.1
            asked = tried > 0
            sums += [
                mixed.sum() / ROWS,
                (tried * mixed).sum() / tried.sum(),
                (p * (1 - p) ** 2 * mixed).sum(),
                mixed[hard].sum() / max(hard.sum(), 1),
                1,
                mixed.sum() / max(asked.sum(), 1),
                asked.sum() / ROWS,
            ]
            largest = max(largest, int(tried.max()))
    count = sums[4]
    return {
        "prompt ratio": float(sums[0] / count),
        "rollout ratio": float(sums[1] / count),
        "value of mixed groups": float(sums[2] / count),
        "ratio of hard prompts": float(sums[3] / count),
        "prompt ratio among asked": float(sums[5] / count),
        "prompts asked": float(sums[6] / count),
        "largest group": largest,
    }


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    if not public_data.available(recorded.TRAJECTORIES):
        console.print(f"replay: needs {recorded.TRAJECTORIES} in {public_data.VARIABLE}")
        return finish(
            "replay",
            [
                Figure(
                    "recorded trajectories", None, "present", None, "must", "public data not found"
                )
            ],
            {},
            begun,
            options,
        )
    truth = smoothed(recorded.trajectories())
    if options.quick:
        truth = truth[:, ::3]
    names = options.agents or [*catalogue.RULES, "oracle", "oracle-knapsack"]
    rows, results = [], {}
    for name in names:
        one = replay(name, truth)
        results[name] = {k: round(v, 4) if isinstance(v, float) else v for k, v in one.items()}
        rows.append([name, *results[name].values()])
    columns = [
        "allocator",
        "per prompt",
        "per rollout",
        "value of mixed",
        "hard prompts",
        "per prompt asked",
        "share asked",
        "largest n",
    ]
    show("effective-gradient ratios, both definitions (open loop)", columns, rows)
    figures = []
    if "uniform" in results and "knapsack-published" in results:
        base, ours = results["uniform"], results["knapsack-published"]
        lift = ours["rollout ratio"] / base["rollout ratio"] - 1
        change = ours["prompt ratio"] / base["prompt ratio"] - 1
        figures = [
            Figure(
                "published knapsack lifts the per-rollout ratio by",
                round(lift, 4),
                ">= 0.20",
                lift >= 0.20,
                "must",
                f"{base['rollout ratio']:.3f} -> {ours['rollout ratio']:.3f}; reference replay "
                "0.51 -> 0.78",
            ),
            Figure(
                "and changes the per-prompt ratio by",
                round(change, 4),
                "shown",
                True,
                "must",
                f"{base['prompt ratio']:.3f} -> {ours['prompt ratio']:.3f}",
            ),
        ]
    results["table"] = {"columns": columns, "rows": rows}
    return finish("replay", figures, results, begun, options)
