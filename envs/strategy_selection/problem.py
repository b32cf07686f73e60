"""Strategy selection as a sequence of decisions: one node after the other, in program order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.choice import Choice, ChoiceProblem
from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record
from allocgym.envs.strategy_selection.walk import COLUMNS

FEATURES = (*COLUMNS, "legal")
PENALTY = 10.0
"""Taken off the objective where a choice is not allowed: more than any cost's logarithm weighs."""


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
    broken: np.ndarray
    done: np.ndarray


class StrategySelection(ChoiceProblem[SelectionOutcome, SelectionMemory]):
    """See `StrategySelectionEnv`.

    Args:
        n_max: rows, strategies of a node (1 to 1,024).
        strict: an illegal action raises; otherwise it becomes the first legal one.
    """

    id: ClassVar[str] = "strategy-selection"
    outcome_type = SelectionOutcome
    decision_type = Choice
    features = FEATURES
    most = 1024
    traces: ClassVar[Mapping[str, str]] = {"magnitude": "log10 of the cost so far"}

    def __init__(self, n_max: int = 48, strict: bool = False) -> None:
        super().__init__(n_max, strict)

    def begin(self, outcome: SelectionOutcome) -> SelectionMemory:
        """See `Problem.begin`."""
        o = outcome
        objective = -np.log10(1 + o.cost) - PENALTY * o.broken
        return SelectionMemory(
            o.table, o.legal, o.present, o.step, o.total, objective, o.broken, o.done
        )

    def legal(self, memory: SelectionMemory) -> np.ndarray:
        """See `ChoiceProblem.legal`: the legal strategies; all there are where none is legal."""
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
        context = np.stack(
            [
                memory.step / np.maximum(memory.total, 1),
                np.clip(memory.objective / 4, -10, 10),
                np.log1p(memory.total) / 4,
                memory.legal.any(1),
            ],
            1,
        )
        return self.observation(rows, context, memory.present, memory)

    def refusal(self, pick: int, row: int, memory: SelectionMemory) -> str:
        """See `ChoiceProblem.refusal`."""
        return f"strategy {pick} of node {int(memory.step[row])} is not legal (ask action_masks())"

    def reward(self, before: SelectionMemory, after: SelectionMemory) -> dict[str, np.ndarray]:
        """Change of the objective; the return is the objective at the end."""
        return {"cost": after.objective - before.objective}

    def tabulate(self, decision: Choice, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        return {"choice": f"strategy {decision.pick[0]}"}

    def scores(self, memory: SelectionMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: minus the objective, and whether something not allowed was chosen."""
        return {
            "log10 of 1 + cost (10 more: not allowed)": -memory.objective,
            "not allowed": memory.broken.astype(float),
        }

    def status(self, decision: Choice, outcome: SelectionOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: the strategy, and the cost so far."""
        chosen = self.tabulate(decision, names)["choice"]
        word = ", not allowed" if outcome.broken[0] else ""
        return (
            f"{chosen}, node {int(outcome.step[0])}/{int(outcome.total[0])}, "
            f"cost {outcome.cost[0]:.4g}{word}"
        )
