"""Strategy selection: a priced memory limit around bounds and elimination (Lagrangian relaxation)."""

from __future__ import annotations

import dataclasses
import time

import numpy as np

from allocgym.agents.strategy_selection import forest as forests
from allocgym.agents.strategy_selection.elimination import (
    BIG,
    Elimination,
    Potentials,
    elimination_order,
)
from allocgym.envs.strategy_selection.instance import FORBIDDEN, StrategyProblem, evaluate, loads


@dataclasses.dataclass
class Selected:
    """What a search found.

    Attributes:
        choice: ``(nodes,)`` the best choice within the limit, or None.
        cost: of it.
        bound: a cost that no choice within the limit is below.
        rounds: assignments looked at.
        first: CPU seconds until the first choice within the limit.
        best: CPU seconds until the best one.
    """

    choice: np.ndarray | None
    cost: float
    bound: float
    rounds: int
    first: float = float("nan")
    best: float = float("nan")


def potentials(problem: StrategyProblem) -> tuple[Potentials, list[np.ndarray]]:
    """The terms of an instance over the strategies that can be part of a choice at all.

    Left out are strategies that are forbidden, that alone exceed the limit, or that no strategy of a
    neighbour goes with (arc consistency).
    """
    merged: dict[tuple[int, int], np.ndarray] = {}
    for i, j, m in problem.edges:
        key, m = ((i, j), m) if i < j else ((j, i), m.T)
        merged[key] = merged.get(key, 0.0) + m
    alive = [
        (c < FORBIDDEN) & ((u <= problem.limit) if s.stop > s.start else True)
        for c, u, s in zip(problem.costs, problem.usages, problem.slots, strict=True)
    ]
    changed = True
    while changed:
        changed = False
        for (i, j), m in merged.items():
            fine = m < FORBIDDEN
            a = alive[i] & fine[:, alive[j]].any(1)
            b = alive[j] & fine[a].any(0)
            if a.sum() < alive[i].sum() or b.sum() < alive[j].sum():
                changed, alive[i], alive[j] = True, a, b
    ids = [np.flatnonzero(a) if a.any() else np.arange(len(a)) for a in alive]
    unary = [np.minimum(c[k], BIG) for c, k in zip(problem.costs, ids, strict=True)]
    pair = {
        (i, j): np.where(m >= FORBIDDEN, BIG, m)[np.ix_(ids[i], ids[j])]
        for (i, j), m in merged.items()
    }
    return Potentials(unary, pair), ids


def search(
    problem: StrategyProblem, seconds: float, seed: int = 0, cap: int = 3000, rounds: int = 10**9
) -> Selected:
    """Minimise the cost within the memory limit.

    Memory is priced per time by multipliers. Each round raises a bound of the priced problem by message
    passing, prunes what cannot be cheap, finds an assignment by elimination, and moves the
    multipliers along the subgradient (usage less the limit, with Polyak's step). The best assignment
    within the limit is kept. Where there is none after six tenths of the time, `forests.descend` has
    the rest.

    Args:
        problem: instance.
        seconds: CPU time.
        seed: of ties in the order of elimination.
        cap: rows of a table; up to ten times that where nothing is found.
        rounds: at most.
    """
    begun = time.process_time()
    rng = np.random.default_rng(seed)
    terms, ids = potentials(problem)
    n = len(ids)
    usage = [u[k] for u, k in zip(problem.usages, ids, strict=True)]
    found = Selected(None, np.inf, -np.inf, 0)
    for _ in range(30):
        if time.process_time() - begun > 0.2 * seconds:
            break
        terms.tighten(5)
    price = np.zeros(problem.times)
    gap, damping, longest, failed = 0.0, 0.5, cap, 0
    now: np.ndarray | None = None
    while found.rounds < rounds and (time.process_time() - begun < seconds or not found.rounds):
        bound = terms.tighten(6)
        below = bound - float(price.sum()) * problem.limit
        found.bound = max(found.bound, below)
        gap = gap or max(0.9 * abs(bound), 1.0)
        got = _assign(terms, bound + gap, cap, now, rng)
        found.rounds += 1
        if got is None:
            # Cut too short, or looked at too narrowly: longer tables, then a start from elsewhere.
            gap, cap, failed = gap * 1.2, min(3 * cap, 10 * longest), failed + 1
            if failed > 3:
                now = _start(problem, ids, seed)
            continue
        now = got
        mine = np.array([k[v] for k, v in zip(ids, now, strict=True)])
        cost, _ = evaluate(problem, mine)
        load = loads(problem, mine)
        if cost + float(price @ load) > bound + gap:
            gap *= 1.5  # nothing within it but the incumbent: look wider
        spent = time.process_time() - begun
        if load.max(initial=0.0) <= problem.limit and cost < min(found.cost, FORBIDDEN):
            if found.choice is None:
                found.first = spent
            found.choice, found.cost, found.best = mine, cost, spent
        if found.cost <= found.bound * (1 + 1e-9):
            break
        if found.choice is None and spent > 0.6 * seconds:
            break
        over = load / problem.limit - 1
        over = np.where((over < 0) & (price <= 0), 0, over)
        target = min(found.cost, 2 * max(found.bound, 1.0))
        step = damping * max(target - below, 0.0) / max(float((over**2).sum()), 1e-6)
        damping = max(damping * 0.97, 0.025)
        fresh = np.maximum(price + step * over / problem.limit, 0)
        ahead = np.concatenate([[0.0], (fresh - price).cumsum()])
        price = fresh
        for i in range(n):
            s = problem.slots[i]
            terms.unary[i] = terms.unary[i] + (ahead[s.stop] - ahead[s.start]) * usage[i]
    left = seconds - (time.process_time() - begun)
    if found.choice is None and left > 0 and found.rounds < rounds:
        # The multipliers never led within the limit: a simpler search, for what it finds.
        choice, cost, _ = forests.descend(problem, left, seed)
        if choice is not None and cost < FORBIDDEN:
            found.choice, found.cost = choice, cost
            found.first = found.best = time.process_time() - begun
    return found


def _start(problem: StrategyProblem, ids: list[np.ndarray], seed: int) -> np.ndarray | None:
    """Labels of an allowed choice found without regard to memory, or None."""
    choice = forests.start(problem, 60, seed)
    if evaluate(problem, choice)[0] >= FORBIDDEN:
        return None
    if not all(v in k for k, v in zip(ids, choice, strict=True)):
        return None
    return np.array([int(np.searchsorted(k, v)) for k, v in zip(ids, choice, strict=True)])


def _assign(
    terms: Potentials, limit: float, cap: int, now: np.ndarray | None, rng: np.random.Generator
) -> np.ndarray | None:
    """A cheap assignment of the priced problem, no worse than ``now``."""
    p = terms.copy()
    for _ in range(3):
        p.prune(limit)
        p.tighten(5)
    p.prune(limit)
    if now is not None:
        for u, k in zip(p.unary, now, strict=True):
            u[k] = min(u[k], BIG / 4)
    small, keep = p.shrink()
    mine = None
    if now is not None:
        mine = np.array([int(np.searchsorted(k, v)) for k, v in zip(keep, now, strict=True)])
    got = Elimination(small, limit, cap, mine).run(elimination_order(small, rng))
    return None if got is None else np.array([k[v] for k, v in zip(keep, got, strict=True)])
