"""Problems whose action is one of a few: keep or drop, the next buffer, a strategy."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core.contracts import Decision, Outcome, Problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record
from allocgym.envs.core.scenario import check_kind, check_numbers

O = TypeVar("O", bound=Outcome)
M = TypeVar("M", bound=Record)


@dataclasses.dataclass(eq=False)
class Choice(Decision):
    """One action per environment.

    Attributes:
        pick: ``(batch,)`` int64; -1 where the episode is over already (others of the batch go on).
    """

    pick: np.ndarray


class ChoiceProblem(Problem[O, M, Choice], Generic[O, M]):
    """One `Choice` a step, some of them illegal; memories have ``step`` and ``done``, ``(batch,)`` each.

    An illegal action becomes a legal one by the problem's rule (``instead``), or raises (``strict``).

    Args:
        n_max: rows of the observation, 1 to ``most``.
        strict: an illegal action raises.
        actions: how many there are (default: one for each row).

    Attributes:
        features: of a row.
        context: how many numbers describe the whole.
        most: largest ``n_max``.
        instead: what an illegal action becomes; None: the first legal one.
        marker: column of the rows that marks the one at hand; None: the first row is.
    """

    context: ClassVar[int] = 4
    most: ClassVar[int] = 4096
    instead: ClassVar[int | None] = None
    marker: ClassVar[int | None] = None

    def __init__(self, n_max: int, strict: bool = False, actions: int | None = None) -> None:
        check_kind("n_max", "int", n_max)
        check_numbers("n_max", n_max, 1, self.most)
        check_kind("strict", "bool", strict)
        self.n_max, self.strict = n_max, strict
        count = n_max if actions is None else actions
        self.action_space = spaces.Discrete(count)
        self.observation_space = spaces.Dict(
            claimants=spaces.Box(-10, 10, (n_max, len(self.features)), np.float32),
            context=spaces.Box(-10, 10, (self.context,), np.float32),
            present=spaces.MultiBinary(n_max),
            action_mask=spaces.MultiBinary(count),
        )

    @abstractmethod
    def legal(self, memory: M) -> np.ndarray:
        """``(batch, actions)`` bool, the actions that are legal now; at least one in each row."""

    @abstractmethod
    def refusal(self, pick: int, row: int, memory: M) -> str:
        """Say why environment ``row`` may not choose ``pick``."""

    def observation(
        self, rows: np.ndarray, context: np.ndarray, present: np.ndarray, memory: M
    ) -> dict[str, np.ndarray]:
        """Put an observation together; rows that are not present become zero."""
        claimants = rows.astype(np.float32)
        claimants[~present] = 0
        return {
            "claimants": claimants,
            "context": context.astype(np.float32),
            "present": present.astype(np.int8),
            "action_mask": self.legal(memory).astype(np.int8),
        }

    def decode(self, action: np.ndarray, memory: Any) -> Choice:
        """See `Problem.decode`."""
        pick = self.check_action(action, len(memory.done))
        if self.strict:
            self.check(Choice(pick), memory)
        else:
            legal = self.legal(memory)
            other = legal.argmax(1) if self.instead is None else self.instead
            pick = np.where(legal[np.arange(len(pick)), pick], pick, other)
        return Choice(np.where(memory.done, -1, pick))

    def action_of(self, decision: Choice, memory: M) -> np.ndarray:
        """See `Problem.action_of`."""
        return np.maximum(decision.pick, 0)

    def cost(self, decision: Choice) -> np.ndarray:
        """One decision (none for -1)."""
        return (decision.pick >= 0).astype(np.int64)

    def check(self, decision: Choice, memory: Any) -> None:
        """See `Problem.check`."""
        pick, batch = np.asarray(decision.pick), len(memory.done)
        if pick.shape != (batch,) or not np.issubdtype(pick.dtype, np.integer):
            raise AllocgymError(
                f"pick: {batch} integers expected, given {pick.dtype} of shape {pick.shape}"
            )
        legal = self.legal(memory)
        known = (pick >= 0) & (pick < legal.shape[1])
        fine = known & legal[np.arange(batch), np.where(known, pick, 0)] | memory.done
        if not fine.all():
            row = int(np.argmin(fine))
            raise AllocgymError(f"action: {self.refusal(int(pick[row]), row, memory)}")
