"""A period of the fluid model while it is played."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.simulators.prb_slicing.fluid import CELLS
from allocgym.simulators.prb_slicing.state import CellState, Played


@dataclasses.dataclass
class Period:
    """A period while it is played: what is filled in place, slice by slice.

    Attributes:
        state: in which it begins.
        blocks: ``(n, batch)`` blocks of each slice.
        carries: ``(n, u, batch)`` bytes a block carries in a millisecond.
        out: what it brings.
        average: ``(n, u, batch)``; see `CellState`.
        counts: ``(batch, n, CELLS)`` packets by delay, or None: none are kept.
    """

    state: CellState
    blocks: np.ndarray
    carries: np.ndarray
    out: Played
    average: np.ndarray
    counts: np.ndarray | None

    def tally(self, row: int) -> np.ndarray:
        """``(batch, CELLS)`` packets of a slice by delay, ``(0, CELLS)`` where none are kept."""
        return np.zeros((0, CELLS)) if self.counts is None else self.counts[:, row]


@dataclasses.dataclass
class SlicePeriod:
    """One slice's part of it.

    Attributes:
        row: of the slice.
        start: ``(u, batch)`` work that waits at the beginning.
        carries: ``(u, batch)`` bytes a block carries in a millisecond.
        coming, number: ``(u, batch, bins)`` work and packets that come.
        work, count: ``(batch, bins)`` of all users; packets entered user by user leave ``count``.
        in_steps: ``(u, batch, steps)`` work that comes in each step.
        backlog: ``(batch, bins)`` work that waits at the ends of bins.
        missing: ``(batch,)`` packets dropped.
    """

    row: int
    start: np.ndarray
    carries: np.ndarray
    coming: np.ndarray
    number: np.ndarray
    work: np.ndarray
    count: np.ndarray
    in_steps: np.ndarray
    backlog: np.ndarray
    missing: np.ndarray
