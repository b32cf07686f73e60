"""Strategy selection as a sequence of decisions: one node after the other, in program order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.choice import PickProblem
from allocgym.envs.core.contracts import Decision, Outcome
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record
from allocgym.envs.strategy_selection.instance import FORBIDDEN, StrategyProblem, evaluate

COLUMNS = ("node cost", "cost to decided neighbours", "least cost ahead", "usage", "peak with it")
FEATURES = (*COLUMNS, "legal")
PENALTY = 10.0
"""Taken off the objective where a choice is not allowed: more than any cost's logarithm weighs."""


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


@dataclasses.dataclass(eq=False)
class StrategyChoice(Decision):
    """The strategy of the node at hand, ``(batch,)``; -1 where the episode is over."""

    pick: np.ndarray


@dataclasses.dataclass(eq=False)
class SelectionOutcome(Outcome):
    """What is known after a choice.

    Attributes:
        table: ``(batch, n_max, len(COLUMNS))`` of the node at hand (costs as they are, usage over the
            limit).
        legal, present: ``(batch, n_max)`` bool, strategies that keep a choice possible, and that exist.
        step, total: ``(batch,)`` nodes decided, and to decide.
        cost: ``(batch,)`` of the nodes decided and the edges between them.
        broken: ``(batch,)`` bool, something not allowed was chosen.
    """

    table: np.ndarray
    legal: np.ndarray
    present: np.ndarray
    step: np.ndarray
    total: np.ndarray
    cost: np.ndarray
    broken: np.ndarray

    @property
    def magnitude(self) -> np.ndarray:
        """``(batch,)`` decimal logarithm of 1 + the cost so far."""
        logarithm: np.ndarray = np.log10(1 + self.cost)
        return logarithm


@dataclasses.dataclass(eq=False)
class SelectionMemory(Record):
    """What an agent remembers.

    ``objective`` is minus the decimal logarithm of 1 + cost, and `PENALTY` less where the choice is not
    allowed.
    """

    table: np.ndarray
    legal: np.ndarray
    present: np.ndarray
    step: np.ndarray
    total: np.ndarray
    objective: np.ndarray
    done: np.ndarray


class StrategySelection(PickProblem[SelectionOutcome, SelectionMemory, StrategyChoice]):
    """See `StrategySelectionEnv`.

    Args:
        n_max: rows, strategies of a node.
        illegal: ``"refuse"`` or ``"first"`` (an illegal action becomes the first legal one).
    """

    id: ClassVar[str] = "strategy-selection"
    outcome_type = SelectionOutcome
    decision_type = StrategyChoice
    features = FEATURES
    most = 1024
    traces: ClassVar[Mapping[str, str]] = {"magnitude": "log10 of the cost so far"}

    def __init__(self, n_max: int = 48, illegal: str = "refuse") -> None:
        super().__init__(n_max, illegal)

    def begin(self, outcome: SelectionOutcome) -> SelectionMemory:
        """See `Problem.begin`."""
        o = outcome
        objective = -np.log10(1 + o.cost) - PENALTY * o.broken
        return SelectionMemory(o.table, o.legal, o.present, o.step, o.total, objective, o.done)

    def update(self, memory: SelectionMemory, outcome: SelectionOutcome) -> SelectionMemory:
        """See `Problem.update`."""
        return self.begin(outcome)

    def masks(self, memory: SelectionMemory) -> np.ndarray:
        """``(batch, n_max)`` bool: the legal strategies; all there are where none is legal."""
        some = memory.legal.any(1, keepdims=True)
        found: np.ndarray = np.where(some, memory.legal, memory.present)
        return found

    def encode(self, memory: SelectionMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        t = memory.table
        rows = np.concatenate(
            [
                np.log10(1 + np.minimum(t[..., :3], 1e9)),
                np.minimum(4 * t[..., 3:4], 10),
                np.minimum(t[..., 4:5], 10),
                memory.legal[..., None],
            ],
            -1,
        )
        rows = rows.astype(np.float32)
        rows[~memory.present] = 0
        context = np.stack(
            [
                memory.step / np.maximum(memory.total, 1),
                np.clip(memory.objective / 4, -10, 10),
                np.log1p(memory.total) / 4,
                memory.legal.any(1),
            ],
            1,
        )
        return {
            "claimants": rows,
            "context": context.astype(np.float32),
            "present": memory.present.astype(np.int8),
            "action_mask": self.masks(memory).astype(np.int8),
        }

    def refusal(self, pick: int, row: int, memory: SelectionMemory) -> str:
        """See `PickProblem.refusal`."""
        return (
            f"strategy {pick} of node {int(memory.step[row])} is not legal "
            f"(ask action_masks(), or make the environment with illegal='first')"
        )

    def reward(self, before: SelectionMemory, after: SelectionMemory) -> dict[str, np.ndarray]:
        """Change of the objective; the return is the objective at the end."""
        return {"cost": after.objective - before.objective}

    def tabulate(self, decision: StrategyChoice, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        return {"choice": f"strategy {decision.pick[0]}"}

    def describe(self, memory: SelectionMemory) -> dict[str, Any]:
        """Numbers for a status line."""
        return {"step": int(memory.step[0]), "objective": float(memory.objective[0])}
