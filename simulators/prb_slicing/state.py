"""What simulated cells keep: the period just played, and all there is of running episodes."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.record import Columns, Record
from allocgym.envs.prb_slicing.records import SlicingInstance
from allocgym.simulators.prb_slicing.episodes import Workload


@dataclasses.dataclass(eq=False)
class Played(Columns):
    """What a period brought: ``(n, u, batch)`` down to ``cqi``, then ``(n, batch)``.

    See `SlicingOutcome`.
    """

    arrived: np.ndarray
    served: np.ndarray
    dropped: np.ndarray
    backlog: np.ndarray
    work: np.ndarray
    granted: np.ndarray
    requested: np.ndarray
    cqi: np.ndarray
    packets: np.ndarray
    late: np.ndarray
    late50: np.ndarray
    delay: np.ndarray

    @classmethod
    def empty(cls, n: int, u: int, batch: int) -> Played:
        """Nothing happened."""
        users, slices = (np.zeros((count, n, *rest, batch)) for count, rest in ((8, (u,)), (4, ())))
        return cls(*users, *slices)


@dataclasses.dataclass(eq=False)
class Histogram(Record):
    """Packets by delay.

    Attributes:
        counts: ``(batch, n, CELLS)``; see `fluid.CELLS`.
    """

    counts: np.ndarray


@dataclasses.dataclass(eq=False)
class CellState(Columns):
    """All there is of a batch of running episodes.

    Attributes:
        workload: users, traffic and channels, those of the coming period.
        instance: what agents know of them.
        played: the last period; its ``backlog`` is what waits.
        units: ``(n, batch)`` int64 groups each slice had in it.
        period: ``(batch,)`` int64 periods completed.
        average: ``(n, u, batch)`` proportional fair's memory of each user's rate, bytes per ms.
        histogram: packets of the episode by delay, where they are kept.
    """

    workload: Workload
    instance: SlicingInstance
    played: Played
    units: np.ndarray
    period: np.ndarray
    average: np.ndarray
    histogram: Histogram | None
