"""One protocol for every radio back end: apply a split, read KPIs per user."""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


@dataclasses.dataclass
class Reading:
    """KPIs since the last reading, by slice row and user, ``(n, u)`` and ``(n,)``.

    Attributes:
        arrived, served, dropped, backlog: bytes (`backlog` at the moment of reading).
        granted, requested: block-milliseconds, or NaN where the source does not say.
        cqi: channel quality, NaN where unknown.
        packets, late, late50: packets, those later than the target or lost, than 50 ms.
        delay: mean delay in ms.
        valid: everything that should have reported did.
        work: ``(n, u)`` block-milliseconds that came, where the source knows.
    """

    arrived: np.ndarray
    served: np.ndarray
    dropped: np.ndarray
    backlog: np.ndarray
    granted: np.ndarray
    requested: np.ndarray
    cqi: np.ndarray
    packets: np.ndarray
    late: np.ndarray
    late50: np.ndarray
    delay: np.ndarray
    valid: bool = True
    work: np.ndarray | None = None

    @classmethod
    def empty(cls, n: int, u: int) -> Reading:
        """Nothing reported."""
        users, slices = [np.zeros((n, u)) for _ in range(7)], [np.zeros(n) for _ in range(4)]
        return cls(*users, *slices)  # type: ignore[arg-type]


class Adapter(Protocol):
    """What a cell offers to a control loop.

    Attributes:
        period_ms: how often masks are reloaded and KPIs appear.
    """

    period_ms: float

    def apply(self, groups: list[int], schedulers: list[int]) -> None:
        """Put a split of resource block groups and the slices' schedulers into force.

        Args:
            groups: of each slice, in the order of their masks.
            schedulers: of each slice: 0 RR, 1 WF, 2 softmax.
        """
        ...

    def read(self) -> Reading:
        """KPIs of the period that has just ended."""
        ...

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        ...
