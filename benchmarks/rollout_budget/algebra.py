"""``--suite algebra``: exactness, closed forms, conservation; all musts."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget import catalogue
from allocgym.agents.rollout_budget.agent import make_rule
from allocgym.agents.rollout_budget.allocator import Context, RuleAllocator
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish
from allocgym.envs.rollout_budget import algebra


def greedy_against_program(instances: int) -> tuple[int, float]:
    """Instances in which greedy misses the dynamic program's value, and the largest gap."""
    rng = np.random.default_rng(0)
    missed, worst = 0, 0.0
    for _ in range(instances):
        m = int(rng.integers(2, 10))
        p, w = rng.beta(0.4, 0.6, m), rng.uniform(0, 2, m)
        low = rng.integers(1, 4, m)
        high = low + rng.integers(0, 24, m)
        budget = int(rng.integers(low.sum(), high.sum() + 1))
        gains = algebra.known_gains(p, 32) * w[:, None]
        n = algebra.greedy(gains[None], budget, low, high)[0]
        values = w[:, None] * algebra.mixed(p[:, None], np.arange(33))
        best = algebra.dynamic_program(values, budget, low, high)[1]
        gap = best - values[np.arange(m), n].sum()
        if n.sum() != budget or (n < low).any() or (n > high).any():
            gap = np.inf
        missed += gap > 1e-9
        worst = max(worst, float(gap))
    return int(missed), worst


def closed_forms(samples: int) -> dict[str, float]:
    """Largest distance of each closed form from Monte Carlo, in standard errors."""
    rng = np.random.default_rng(1)
    out: dict[str, float] = {}

    def note(name: str, truth: float, values: np.ndarray) -> None:
        # An event that never missed in the sample may still miss once in as many.
        error = max(float(values.std()) / np.sqrt(len(values)), 1 / len(values))
        out[name] = max(out.get(name, 0.0), float(abs(truth - values.mean()) / error))

    for p, n in ((0.05, 8), (0.3, 4), (0.5, 16), (0.9, 6)):
        k = rng.binomial(n, p, samples)
        note("P(mixed)", float(algebra.mixed(np.array(p), n)), ((k > 0) & (k < n)) * 1.0)
        rewards = rng.random((samples, 4000 // 100)) < p
        rate = np.full(samples, p)
        a = np.abs(rewards - rate[:, None]) / np.sqrt(p * (1 - p))
        note("mean |A| = 2 sqrt(p(1-p))", float(algebra.mean_abs_advantage(np.array(p))), a.mean(1))
        first = rng.geometric(p, samples)
        other = rng.geometric(1 - p, samples)
        # Rollouts until both outcomes were seen: the first one differs at once with some chance.
        start = rng.random(samples) < p
        until = 1 + np.where(start, other, first)
        note("rollouts until mixed", float(algebra.rollouts_until_mixed(np.array(p))), until * 1.0)
    for a, b in ((0.4, 0.7), (3.0, 1.5), (1.0, 20.0)):
        drawn = rng.beta(a, b, samples)
        gains = algebra.beta_gains(np.array([a]), np.array([b]), 12)[0]
        for n in (1, 3, 8, 11):
            note(
                "marginal gain under a Beta belief",
                float(gains[n]),
                drawn**n * (1 - drawn) + (1 - drawn) ** n * drawn,
            )
    return out


def vip_optimal(instances: int) -> float:
    """Most by which a swap of one rollout improves VIP's allocations (0: none does)."""
    rng = np.random.default_rng(2)
    worst = 0.0
    for _ in range(instances):
        m, budget = 8, 96
        p = rng.uniform(0.02, 0.98, m)
        n = algebra.greedy(algebra.dr_grpo_gains(p, 64)[None], budget, 3, 64)[0].astype(float)
        a = p * (1 - p)

        def cost(counts: np.ndarray, a: np.ndarray = a) -> float:
            return float((4 * a * (counts - 1) / counts**2).sum())

        base = cost(n)
        for i in range(m):
            for j in range(m):
                if i != j and n[i] > 3 and n[j] < 64:
                    other = n.copy()
                    other[i] -= 1
                    other[j] += 1
                    worst = max(worst, base - cost(other))
        real = algebra.rloo_counts(p[None], np.array([budget]))[0]
        worst = max(worst, abs(float(real.sum()) - budget) * 1e3)
    return float(worst)


def rules_hold(trials: int) -> dict[str, int]:
    """Violations over all rules of conservation, bounds, multiples, extremes and equivariance."""
    bad = {"conservation": 0, "bounds": 0, "multiples": 0, "extreme batches": 0, "equivariance": 0}
    for name in catalogue.RULES:
        for trial in range(trials):
            rng = np.random.default_rng([3, trial])
            m = int(rng.integers(4, 40))
            multiple = int(rng.choice([1, 1, 4]))
            high = int(rng.integers(4, 33)) * 4
            budget = int(rng.integers(1, m * high // 4 + 1)) * 4
            budget = min(budget, m * high)
            made = RuleAllocator(make_rule(name), high=high, multiple=multiple)
            truth = rng.choice([0.0, 1.0, 0.5], m) if trial % 3 == 0 else rng.random(m)
            if trial % 3 == 1:
                truth[:] = trial % 2
            ids = rng.permutation(3 * m)[:m]
            for step in range(3):
                rounds = made.rule.rounds
                for r in range(rounds):
                    part = budget // (rounds * multiple) * multiple
                    if part == 0:
                        continue
                    n = made.allocate(ids, part, Context(step, 3, r, rounds))
                    bad["conservation"] += int(n.sum() != part)
                    bad["bounds"] += int((n < 0).any() or (n > high).any())
                    bad["multiples"] += int((n % multiple != 0).any())
                    hits = rng.binomial(n, truth)
                    made.observe(ids, n, hits, tokens=3 * n, final=r + 1 == rounds)
            if trial % 3 == 1:
                bad["extreme batches"] += int(not np.isfinite(made._beliefs.a).all())
            bad["equivariance"] += _broken(made, ids, high, multiple)
    return bad


def _broken(made: RuleAllocator, ids: np.ndarray, high: int, multiple: int) -> int:
    """1 where another order of the prompts gives other counts (ties, rounding apart)."""
    m = len(ids)
    budget = 2 * m * 4
    if budget > m * high or made.rule.rounds > 1:
        return 0
    perm = np.random.default_rng(5).permutation(m)
    one = made.allocate(ids, budget)
    other = made.allocate(ids[perm], budget)
    # Rows of equal value may exchange a unit (or one group): compare what rounding cannot change.
    slack = max(multiple, 1)
    if (one.min() == one.max()) and (other.min() == other.max()):
        return 0
    if made.rule.name in ("uniform-16", "uniform-32", "mopps", "dapo-refill", "cures"):
        slack = 32
    return int(np.abs(one[perm] - other).max() > slack)


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    missed, worst = greedy_against_program(200 if options.quick else 1000)
    forms = closed_forms(20_000 if options.quick else 100_000)
    swap = vip_optimal(20 if options.quick else 100)
    bad = rules_hold(3 if options.quick else 9)
    sec = float(
        np.max(
            np.abs(
                algebra.mean_abs_advantage(np.linspace(0, 1, 101))
                - 2 * np.sqrt(np.linspace(0, 1, 101) * (1 - np.linspace(0, 1, 101)))
            )
        )
    )
    count = 200 if options.quick else 1000
    figures = [
        Figure(
            f"greedy misses the dynamic program's value, of {count}",
            missed,
            "0",
            missed == 0,
            "must",
            f"largest gap {worst:.1e}",
        ),
        Figure(
            "closed forms against Monte Carlo, most standard errors",
            round(max(forms.values()), 2),
            "<= 4.5",
            max(forms.values()) <= 4.5,
            "must",
            ", ".join(f"{k} {v:.1f}" for k, v in forms.items()),
        ),
        Figure("SEC's mean |A| is 2 sqrt(p(1-p)), largest error", sec, "<= 1e-12", sec <= 1e-12),
        Figure("VIP: most a swap of one rollout gains", swap, "<= 1e-9", swap <= 1e-9),
        *(Figure(f"rules: violations of {k}", v, "0", v == 0) for k, v in bad.items()),
    ]
    results: dict[str, Any] = {"closed forms": forms}
    return finish("algebra", figures, results, begun, options)
