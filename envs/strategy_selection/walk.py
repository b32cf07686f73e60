"""The rules of strategy selection: the nodes of one instance, decided in order."""

from __future__ import annotations

import numpy as np

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.strategy_selection.instance import FORBIDDEN, StrategyProblem, evaluate

COLUMNS = ("node cost", "cost to decided neighbours", "least cost ahead", "usage", "peak with it")


class Walk:
    """Decides the nodes of one instance in order, and keeps what is left possible.

    A strategy is legal where no decided neighbour forbids it, every undecided neighbour is left with a
    strategy, and the memory holds with all later nodes at their least usage.

    Args:
        problem: instance.
    """

    def __init__(self, problem: StrategyProblem) -> None:
        self.problem = problem
        n = len(problem.costs)
        self.near: list[list[tuple[int, np.ndarray]]] = [[] for _ in range(n)]
        merged: dict[tuple[int, int], np.ndarray] = {}
        for i, j, m in problem.edges:
            key, m = ((i, j), m) if i < j else ((j, i), m.T)
            merged[key] = merged.get(key, 0.0) + m
        for (i, j), m in merged.items():
            self.near[i].append((j, m))
            self.near[j].append((i, m.T))
        self.alive = [c < FORBIDDEN for c in problem.costs]
        self.choice = np.full(n, -1)
        self.cost, self.step, self.broken = 0.0, 0, False
        self._seen: tuple[int, np.ndarray, np.ndarray] | None = None
        self.least = np.array(
            [
                float(u[a].min()) if a.any() else float(u.min())
                for u, a in zip(problem.usages, self.alive, strict=True)
            ]
        )
        self.load = np.zeros(problem.times)
        for s, u in zip(problem.slots, self.least, strict=True):
            self.load[s] += u

    @property
    def done(self) -> bool:
        """Every node is decided."""
        return self.step >= len(self.choice)

    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """``(strategies, len(COLUMNS))`` of the node at hand, and which strategies are legal."""
        p, i = self.problem, self.step
        if self._seen is not None and self._seen[0] == i:
            return self._seen[1], self._seen[2]
        k = len(p.costs[i])
        joined, ahead = np.zeros(k), np.zeros(k)
        legal = self.alive[i].copy()
        for j, m in self.near[i]:
            if self.choice[j] >= 0:
                joined += m[:, self.choice[j]]
            else:
                rest = np.where(self.alive[j], m + p.costs[j], np.inf).min(1)
                legal &= rest < FORBIDDEN
                ahead += np.minimum(rest, FORBIDDEN)
        legal &= joined < FORBIDDEN
        s = p.slots[i]
        base = float(self.load[s].max(initial=0.0)) - self.least[i] if s.stop > s.start else -np.inf
        peak = np.maximum(base + p.usages[i], self.load.max(initial=0.0) if np.isinf(base) else 0.0)
        if s.stop > s.start:
            legal &= peak <= p.limit
        scale = p.limit if np.isfinite(p.limit) else max(float(self.load.max(initial=1.0)), 1.0)
        found = np.stack([p.costs[i], joined, ahead, p.usages[i] / scale, peak / scale], 1)
        self._seen = i, found, legal
        return found, legal

    def play(self, pick: int) -> None:
        """Decide the node at hand."""
        p, i = self.problem, self.step
        _, legal = self.table()
        self.broken |= not legal[pick]
        self.cost += min(float(p.costs[i][pick]), FORBIDDEN)
        for j, m in self.near[i]:
            if self.choice[j] >= 0:
                self.cost += min(float(m[pick, self.choice[j]]), FORBIDDEN)
            else:
                left = self.alive[j] & (m[pick] < FORBIDDEN)
                self.alive[j] = left if left.any() else self.alive[j]
        self.load[p.slots[i]] += float(p.usages[i][pick]) - self.least[i]
        self.choice[i] = pick
        self.step += 1

    def verify(self) -> None:
        """Hold the running cost against the evaluator of the whole instance.

        Raises:
            AllocgymError: they differ (a mistake in the rules), or it is too early to tell.
        """
        if not self.done:
            raise AllocgymError("strategy selection: not every node is decided")
        cost, peak = evaluate(self.problem, self.choice)
        fits = peak <= self.problem.limit and cost < FORBIDDEN
        if fits == self.broken or (fits and abs(cost - self.cost) > 1e-9 * max(cost, 1.0)):
            raise AllocgymError(f"strategy selection: cost {self.cost} kept, {cost} evaluated")
