"""Pairwise potentials: bounds by message passing, assignments by elimination over sparse tables."""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np

BIG = 1e12
"""Stands for a combination that is not allowed (or proved not to be worth it)."""
Pair = tuple[int, int]
_HASH = np.random.default_rng(5).integers(1, 2**62, size=4096, dtype=np.int64)


@dataclasses.dataclass
class Potentials:
    """A sum of terms over variables with few labels each.

    Attributes:
        unary: per variable, ``(labels,)``.
        pair: ``(i, j)`` with ``i < j`` to ``(labels of i, labels of j)``.
    """

    unary: list[np.ndarray]
    pair: dict[Pair, np.ndarray]

    def copy(self) -> Potentials:
        """A copy with arrays of its own."""
        return Potentials(
            [u.copy() for u in self.unary], {e: t.copy() for e, t in self.pair.items()}
        )

    def bound(self) -> float:
        """A sum that no assignment is below."""
        low = sum(float(u.min()) for u in self.unary)
        return low + sum(float(t.min()) for t in self.pair.values())

    def tighten(self, sweeps: int) -> float:
        """Move terms between variables and pairs so that `bound` rises; no assignment's sum changes.

        Sequential reweighted message passing (Kolmogorov 2015, section 3, for pairwise terms): a
        variable collects the min-marginals of the pairs behind it and hands what it has to the pairs
        ahead, in equal parts; then the other way round.
        """
        n = len(self.unary)
        low: list[list[Pair]] = [[] for _ in range(n)]
        high: list[list[Pair]] = [[] for _ in range(n)]
        for i, j in self.pair:
            high[i].append((i, j))
            low[j].append((i, j))
        for sweep in range(2 * sweeps):
            behind, ahead = (low, high) if sweep % 2 == 0 else (high, low)
            for i in range(n) if sweep % 2 == 0 else reversed(range(n)):
                mine = self.unary[i]
                for e in behind[i]:
                    t = self.pair[e]
                    least = t.min(0) if e[1] == i else t.min(1)
                    t -= least if e[1] == i else least[:, None]
                    mine = mine + least
                mine = np.minimum(mine, BIG)
                if ahead[i]:
                    share = mine / max(len(behind[i]), len(ahead[i]))
                    for e in ahead[i]:
                        self.pair[e] += share[:, None] if e[0] == i else share
                    mine = mine - share * len(ahead[i])
                self.unary[i] = mine
        return self.bound()

    def prune(self, limit: float) -> None:
        """Forbid labels and pairs of labels that no assignment within ``limit`` can use."""
        gap = limit - self.bound()
        near: list[list[Pair]] = [[] for _ in self.unary]
        for e in self.pair:
            near[e[0]].append(e)
            near[e[1]].append(e)
        for i, u in enumerate(self.unary):
            star = u - u.min()
            for e in near[i]:
                t = self.pair[e]
                star = star + (t.min(1) if e[0] == i else t.min(0)) - t.min()
            self.unary[i] = np.where(star > gap, BIG, u)
        for (i, j), t in self.pair.items():
            a, b = self.unary[i], self.unary[j]
            t[(a - a.min())[:, None] + (t - t.min()) + (b - b.min()) > gap] = BIG

    def shrink(self) -> tuple[Potentials, list[np.ndarray]]:
        """Leave forbidden labels out; also the labels kept, per variable."""
        keep = [np.flatnonzero(u < BIG / 2) for u in self.unary]
        keep = [
            k if len(k) else np.array([int(u.argmin())])
            for k, u in zip(keep, self.unary, strict=True)
        ]
        pair = {(i, j): t[np.ix_(keep[i], keep[j])] for (i, j), t in self.pair.items()}
        return Potentials([u[k] for u, k in zip(self.unary, keep, strict=True)], pair), keep


def elimination_order(p: Potentials, rng: np.random.Generator, noise: float = 0.1) -> list[int]:
    """Variables in the order of the smallest table that eliminating each makes."""
    n = len(p.unary)
    near: list[set[int]] = [set() for _ in range(n)]
    for i, j in p.pair:
        near[i].add(j)
        near[j].add(i)
    size = np.log([len(u) for u in p.unary])
    jitter = noise * rng.random(n)

    def weight(v: int) -> float:
        return float(size[v] + jitter[v] + sum(size[u] for u in near[v]))

    heap = [(weight(v), v) for v in range(n)]
    heapq.heapify(heap)
    done, order = np.zeros(n, bool), []
    while heap:
        before, v = heapq.heappop(heap)
        now = weight(v) if not done[v] else before
        if done[v] or now > before + 1e-9:
            if not done[v]:
                heapq.heappush(heap, (now, v))
            continue
        order.append(v)
        done[v] = True
        for u in near[v]:
            near[u] |= near[v]
            near[u] -= {u, v}
        for u in near[v]:
            heapq.heappush(heap, (weight(u), u))
    return order


@dataclasses.dataclass
class _Table:
    """Assignments of some variables that are still in play, and what they cost so far."""

    scope: tuple[int, ...]
    rows: np.ndarray
    value: np.ndarray

    def column(self, v: int) -> np.ndarray:
        found: np.ndarray = self.rows[:, self.scope.index(v)]
        return found

    def key(self, scope: tuple[int, ...]) -> np.ndarray:
        """``(rows,)`` hashes of the labels in ``scope``."""
        with np.errstate(over="ignore"):
            out = np.zeros(len(self.rows), np.int64)
            for q, v in enumerate(scope):
                out += (self.column(v).astype(np.int64) + 1) * _HASH[q]
        return out


class Elimination:
    """Finds an assignment by eliminating variables one after the other.

    Tables hold only combinations that can still lead to a sum within ``limit``; where one is longer
    than ``cap``, the rows of least value stay (values are small where `Potentials.tighten` says that
    the rest can be cheap), and always the row of the incumbent: the result is no worse than it.

    Args:
        p: terms.
        limit: assignments above this sum are of no interest.
        cap: longest table.
        incumbent: an assignment to start from, or None.
    """

    def __init__(
        self, p: Potentials, limit: float, cap: int, incumbent: np.ndarray | None = None
    ) -> None:
        self.limit, self.cap, self.incumbent = limit, cap, incumbent
        self.low = 0.0
        self.unary = [u - u.min() for u in p.unary]
        self.pair = {e: t - t.min() for e, t in p.pair.items()}
        self.low = p.bound()
        self.near: list[set[int]] = [set() for _ in p.unary]
        for i, j in p.pair:
            self.near[i].add(j)
            self.near[j].add(i)
        self.messages: list[list[_Table]] = [[] for _ in p.unary]
        self.gone = np.zeros(len(p.unary), bool)

    def _mine(self, t: _Table) -> np.ndarray:
        if self.incumbent is None:
            return np.zeros(len(t.rows), bool)
        found: np.ndarray = (t.rows == self.incumbent[list(t.scope)]).all(1)
        return found

    def _trim(self, t: _Table) -> _Table:
        mine = self._mine(t)
        keep = (t.value <= self.limit - self.low) | mine
        if not keep.all():
            t, mine = _Table(t.scope, t.rows[keep], t.value[keep]), mine[keep]
        if len(t.value) > self.cap:
            best = np.argpartition(t.value, self.cap)[: self.cap]
            best = np.union1d(best, np.flatnonzero(mine))
            t = _Table(t.scope, t.rows[best], t.value[best])
        return t

    def _join(self, a: _Table, b: _Table) -> _Table:
        shared = tuple(v for v in b.scope if v in a.scope)
        new = tuple(v for v in b.scope if v not in a.scope)
        left, right = a.key(shared), b.key(shared)
        order = np.argsort(right, kind="stable")
        right = right[order]
        first = np.searchsorted(right, left, "left")
        count = np.searchsorted(right, left, "right") - first
        if count.sum() > 40 * self.cap:
            best = np.argsort(a.value)
            few = max(int(np.searchsorted(count[best].cumsum(), 40 * self.cap)), 1)
            best = np.union1d(best[:few], np.flatnonzero(self._mine(a)))
            a = _Table(a.scope, a.rows[best], a.value[best])
            first, count = first[best], count[best]
        i = np.repeat(np.arange(len(count)), count)
        step = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
        j = order[np.repeat(first, count) + step]
        rows = [a.rows[i], *(b.column(v)[j][:, None] for v in new)]
        return self._trim(
            _Table((*a.scope, *new), np.concatenate(rows, 1), a.value[i] + b.value[j])
        )

    def _gather(self, t: _Table, waiting: list[tuple[int, Pair]]) -> _Table:
        """Add the pair terms whose variables are both in the table."""
        for entry in [w for w in waiting if w[0] in t.scope]:
            waiting.remove(entry)
            i, j = entry[1]
            t = _Table(t.scope, t.rows, t.value + self.pair[i, j][t.column(i), t.column(j)])
        return self._trim(t)

    def _expand(self, t: _Table, v: int, u: int, e: Pair) -> _Table:
        """Add a variable that is only reached by a pair term."""
        terms = self.pair[e] if e[0] == v else self.pair[e].T
        value = t.value[:, None] + terms[t.column(v)]
        keep = value <= self.limit - self.low
        if self.incumbent is not None:
            keep[np.flatnonzero(self._mine(t)), self.incumbent[u]] = True
        i, j = np.nonzero(keep)
        rows = np.concatenate([t.rows[i], j[:, None].astype(t.rows.dtype)], 1)
        return self._trim(_Table((*t.scope, u), rows, value[i, j]))

    def _bucket(self, v: int) -> _Table:
        waiting = [
            (u, (v, u) if (v, u) in self.pair else (u, v)) for u in self.near[v] if not self.gone[u]
        ]
        messages = sorted(self.messages[v], key=lambda m: len(m.scope))
        if messages:
            m = messages.pop()
            t = _Table(m.scope, m.rows, m.value + self.unary[v][m.column(v)])
        else:
            labels = np.arange(len(self.unary[v]), dtype=np.int16)
            t = _Table((v,), labels[:, None], self.unary[v].copy())
        t = self._gather(self._trim(t), waiting)
        while messages:
            inside = set(t.scope)
            messages.sort(key=lambda m: -len(set(m.scope) - inside))
            t = self._gather(self._join(t, messages.pop()), waiting)
        for u, e in sorted(waiting, key=lambda w: len(self.unary[w[0]])):
            t = self._expand(t, v, u, e)
        return t

    def run(self, order: list[int]) -> np.ndarray | None:
        """``(variables,)`` labels, or None where every table entry was pruned or cut away."""
        rank = {v: q for q, v in enumerate(order)}
        back: dict[int, tuple[tuple[int, ...], np.ndarray, np.ndarray]] = {}
        for v in order:
            t = self._bucket(v)
            self.messages[v] = []
            self.gone[v] = True
            if not len(t.value):
                return None
            scope = tuple(u for u in t.scope if u != v)
            key = t.key(scope)
            best = np.lexsort((t.value, key))
            first = np.ones(len(best), bool)
            first[1:] = key[best][1:] != key[best][:-1]
            best = best[first]
            back[v] = scope, key[best], t.column(v)[best]
            value = t.value[best]
            least = float(value.min())
            self.low += least
            if not scope:
                continue
            made = _Table(scope, t.rows[best][:, [t.scope.index(u) for u in scope]], value - least)
            target = min(scope, key=lambda u: rank[u])
            if len(scope) > 1:
                self.messages[target].append(made)
                continue
            terms = np.full(len(self.unary[target]), BIG)
            terms[made.rows[:, 0]] = made.value
            terms = np.minimum(self.unary[target] + terms, BIG)
            self.low += float(terms.min())
            self.unary[target] = terms - terms.min()
        out = np.zeros(len(order), np.int64)
        for v in reversed(order):
            scope, key, label = back[v]
            here = _Table(scope, out[None, list(scope)], np.zeros(1)).key(scope)[0]
            out[v] = label[int(np.searchsorted(key, here))]
        return out
