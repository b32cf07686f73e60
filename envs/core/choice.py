"""Problems whose action picks one row among the legal ones: the next buffer, the next strategy."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core.contracts import Decision, Outcome, Problem
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.record import Record

O = TypeVar("O", bound=Outcome)
M = TypeVar("M", bound=Record)
D = TypeVar("D", bound=Decision)


class PickProblem(Problem[O, M, D], Generic[O, M, D]):
    """One row a step; decisions have ``pick``, ``(batch,)``, -1 where the episode is over.

    Args:
        n_max: rows.
        illegal: ``"refuse"`` or ``"first"`` (an illegal action becomes the first legal one).

    Attributes:
        features: of a row.
        most: largest ``n_max``.
    """

    features: ClassVar[tuple[str, ...]]
    most: ClassVar[int]

    def __init__(self, n_max: int, illegal: str = "refuse") -> None:
        if illegal not in ("refuse", "first"):
            raise unknown("illegal", illegal, ("refuse", "first"))
        if not 1 <= n_max <= self.most:
            raise AllocgymError(f"n_max: 1 to {self.most} expected, given {n_max}")
        self.n_max, self.illegal = n_max, illegal
        self.action_space = spaces.Discrete(n_max)
        self.observation_space = spaces.Dict(
            {
                "claimants": spaces.Box(-10, 10, (n_max, len(self.features)), np.float32),
                "context": spaces.Box(-10, 10, (4,), np.float32),
                "present": spaces.MultiBinary(n_max),
                "action_mask": spaces.MultiBinary(n_max),
            }
        )

    @abstractmethod
    def masks(self, memory: M) -> np.ndarray:
        """``(batch, n_max)`` bool: which rows may be picked."""

    @abstractmethod
    def refusal(self, pick: int, row: int, memory: M) -> str:
        """Say why environment ``row`` may not pick ``pick``."""

    def decode(self, action: np.ndarray, memory: Any) -> D:
        """See `Problem.decode`."""
        kind: Any = self.decision_type
        pick = self.check_action(action, len(memory.step)).astype(np.int64)
        if ((pick < 0) | (pick >= self.n_max)).any():
            raise AllocgymError(f"action: 0 to {self.n_max - 1} expected, given {pick}")
        if self.illegal == "first":
            masks = self.masks(memory)
            pick = np.where(masks[np.arange(len(pick)), pick], pick, masks.argmax(1))
            made: D = kind(pick)
            return made
        made = kind(pick)
        self.check(made, memory)
        return made

    def action_of(self, decision: Any, memory: M) -> np.ndarray:
        """See `Problem.action_of`."""
        pick: np.ndarray = decision.pick
        return pick

    def cost(self, decision: Any) -> np.ndarray:
        """One decision (none for -1)."""
        one: np.ndarray = (decision.pick >= 0).astype(np.int64)
        return one

    def check(self, decision: Any, memory: Any) -> None:
        """See `Problem.check`."""
        pick = decision.pick
        legal = self.masks(memory)[np.arange(len(pick)), pick] & (pick >= 0) | memory.done
        if not legal.all():
            row = int(np.argmin(legal))
            raise AllocgymError(f"action: {self.refusal(int(pick[row]), row, memory)}")
