"""Problems that split a period's budget: a tilt of a prior in, whole units out."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.arrays import columns, total
from allocgym.envs.core.contracts import Outcome, Problem, Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record

O = TypeVar("O", bound=Outcome)
M = TypeVar("M", bound=Record)


class ShareProblem(Problem[O, M, Shares], Generic[O, M]):
    """Decides `Shares`: every claimant gets its floor, the rest goes by ``prior exp(kappa action)``.

    Rounded to whole units (largest remainder), within what each claimant may get; rows sum to the
    period's budget exactly.

    Args:
        n_max: rows of claimants.
        kappa: reach of an action, > 0; ``share_j ~ prior_j exp(kappa a_j)``.
    """

    decision_type = Shares

    def __init__(self, n_max: int, kappa: float = budget.KAPPA) -> None:
        if not 0 < kappa <= 50:
            raise AllocgymError(f"kappa: a number > 0, at most 50, expected, given {kappa}")
        self.n_max, self.kappa = n_max, kappa
        self.action_space = spaces.Box(-1.0, 1.0, (n_max,), np.float32)

    @abstractmethod
    def amount(self, memory: M) -> np.ndarray:
        """``(batch,)`` int64 units of the coming period."""

    def prior(self, memory: M) -> np.ndarray:
        """``(batch, n)`` shares that action 0 asks for, 0 for padding (default: equal)."""
        return np.full((len(self.amount(memory)), self.n_max), 1 / self.n_max)

    def bounds(self, memory: M) -> tuple[np.ndarray, np.ndarray]:
        """Least and most units of each claimant in the coming period, ``(n, batch)`` int64 each."""
        most = np.broadcast_to(self.amount(memory), (self.n_max, len(self.amount(memory))))
        return np.zeros_like(most), most

    def decode(self, action: np.ndarray, memory: M) -> Shares:
        """See `Problem.decode`."""
        amount = self.amount(memory)
        array = self.check_action(action, len(amount))
        # A copy in the layout of everything else: claimants first, environments in long rows.
        tilt = np.ascontiguousarray(columns(array))
        tilted = budget.anchored_shares(tilt, columns(self.prior(memory)), self.kappa)
        low, high = self.bounds(memory)
        units = budget.above_floors(tilted, amount, low, high)
        if units is None:
            above = (tilted * (amount - total(low)) + low) / amount
            return self.round(columns(above), memory)
        return Shares(columns(units))

    def round(self, shares: np.ndarray, memory: M) -> Shares:
        """Turn ``(batch, n)`` shares into whole units within this period's bounds."""
        units = budget.split_units(columns(shares), self.amount(memory), *self.bounds(memory))
        return Shares(columns(units))

    def action_of(self, decision: Shares, memory: M) -> np.ndarray:
        """See `Problem.action_of`."""
        low, _ = self.bounds(memory)
        above = (columns(decision.units) - low) / np.maximum(self.amount(memory) - total(low), 1)
        prior = columns(self.prior(memory))
        action = budget.action_for(np.maximum(above, 0), prior, self.kappa)
        return columns(action).astype(np.float32)

    def cost(self, decision: Shares) -> np.ndarray:
        """See `Problem.cost`."""
        return total(columns(decision.units))

    def check(self, decision: Shares, memory: M) -> None:
        """See `Problem.check`."""
        amount = self.amount(memory)
        units: Any = np.asarray(decision.units)
        shape = (len(amount), self.n_max)
        if units.shape != shape or not np.issubdtype(units.dtype, np.integer):
            raise AllocgymError(
                f"units: integers of shape {shape} expected, given {units.dtype} of shape {units.shape}"
            )
        if (units.sum(1) != amount).any():
            raise AllocgymError(
                f"units: each row must sum to the period's budget {amount.tolist()}, "
                f"given sums {units.sum(1).tolist()}"
            )
        low, high = (columns(bound) for bound in self.bounds(memory))
        if (units < low).any() or (units > high).any():
            raise AllocgymError(
                f"units: between {low.tolist()} and {high.tolist()} expected, given {units.tolist()}"
            )
