"""The books: granted = spent + wasted + left, always."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.envs.core.errors import OutOfBudgetError


class Ledger:
    """Budget accounts of a batch of environments, in whole units.

    ``spent`` bought what it was meant to buy; ``wasted`` was consumed without effect (work lost to
    a failure that had to be paid again, exploration that was thrown away).
    """

    def __init__(self, batch: int) -> None:
        self.granted = np.zeros(batch, np.int64)
        self.spent = np.zeros(batch, np.int64)
        self.wasted = np.zeros(batch, np.int64)

    @property
    def left(self) -> np.ndarray:
        """``(batch,)`` int64 units that can still be spent."""
        return self.granted - self.spent - self.wasted

    def grant(self, budget: np.ndarray, where: np.ndarray) -> None:
        """Open fresh accounts of ``budget`` units where the mask says so."""
        self.granted[where] = budget[where]
        self.spent[where] = 0
        self.wasted[where] = 0

    def charge(self, units: np.ndarray, wasted: np.ndarray | int = 0) -> None:
        """Book units as spent, and some as wasted.

        Raises:
            OutOfBudgetError: an account would be overdrawn.
        """
        if ((units + wasted) > self.left).any():
            raise OutOfBudgetError(
                f"ledger: {int(np.max(units + wasted))} units charged, {int(self.left.min())} left"
            )
        self.spent += units
        self.wasted += wasted

    def to_json(self) -> dict[str, Any]:
        """Return the accounts as lists."""
        accounts = {"granted": self.granted, "spent": self.spent, "wasted": self.wasted}
        return {name: array.tolist() for name, array in accounts.items()}

    def load(self, data: dict[str, Any]) -> None:
        """Take over accounts from `to_json`."""
        for name in ("granted", "spent", "wasted"):
            getattr(self, name)[:] = data[name]
