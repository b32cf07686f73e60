"""Radio slicing as a fluid: the batched twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.arrays import total
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import SlicingOutcome
from allocgym.envs.prb_slicing.scenario import SlicingScenario
from allocgym.simulators.prb_slicing import fluid, stepping
from allocgym.simulators.prb_slicing.cell import SimulatedCell
from allocgym.simulators.prb_slicing.episodes import COARSE_MS, FINE_MS
from allocgym.simulators.prb_slicing.joint import play_joint
from allocgym.simulators.prb_slicing.period import Period, SlicePeriod
from allocgym.simulators.prb_slicing.state import CellState, Histogram, Played

SHORT = 0.6
"""A slice whose queue stays below this part of its delay target is not stepped user by user."""
DTYPES: Mapping[str, Any] = {"float32": np.float32, "float64": np.float64}


class FluidCell(SimulatedCell[CellState]):
    """The batched twin: a fluid model, exact in work, approximate in who waits for whom.

    Slices with a tight delay target are stepped at 1 ms, others at 10 ms.

    Args:
        problem: radio slicing.
        scenario: to draw episodes from.
        num_envs: cells.
        dtype: of the inner arithmetic, ``"float64"`` (default) or ``"float32"``.
        histogram: see `SimulatedCell`.
    """

    capabilities: ClassVar[frozenset[str]] = frozenset({"oracle"})

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        num_envs: int = 1,
        dtype: str = "float64",
        histogram: bool = False,
    ) -> None:
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        self.dtype = DTYPES[dtype]
        super().__init__(problem, scenario, num_envs, histogram)

    def _fresh(self, seeds: np.ndarray) -> CellState:
        return self.begun(seeds)

    def _step(self, state: CellState, decision: Shares) -> CellState:
        units = np.asarray(decision.units)
        p = self._played(state, self.blocks(units), self.keeps)
        kept = None if p.counts is None else Histogram(p.counts)
        more = {"average": p.average, "histogram": kept}
        return self.ended(state, np.array(units.T), p.out, **more)

    def _played(self, state: CellState, blocks: np.ndarray, keep: bool = False) -> Period:
        """Play the coming period with ``(n, batch)`` blocks; ``keep`` counts packets by delay."""
        s = self.scenario
        out = Played.empty(self.n, self.u, self.batch)
        carries = self.episodes.carries(state.workload).astype(self.dtype)
        counts = state.histogram.counts.copy() if keep and state.histogram else None
        p = Period(state, blocks, carries, out, state.average.copy(), counts)
        if s.borrow or s.pool:
            play_joint(self.episodes, p, self.dtype)
        else:
            for i in range(len(s.slices)):
                self._play_slice(p, i)
        out.backlog = state.played.backlog + out.arrived - out.served - out.dropped
        np.maximum(out.backlog, 0, out=out.backlog)
        return p

    def preview(self, groups: int) -> SlicingOutcome:
        """The coming period's outcome if every slice had ``groups`` groups (hard masks only).

        The last slice has the carrier's last, smaller group; clairvoyant agents put splits
        together from these. Nothing is left of it in the state.

        Raises:
            AllocgymError: slices are coupled, by borrowing or by sharing everything.
        """
        s = self.scenario
        if s.borrow or s.pool:
            raise AllocgymError("preview: slices with hard masks expected, given borrow or pool")
        k, sizes = len(s.slices), s.carrier.sizes
        blocks = np.zeros((self.n, self.batch))
        blocks[:k] = groups * s.carrier.group
        blocks[k - 1] = sizes[len(sizes) - groups :].sum()
        played = self.reported(self.state, self._played(self.state, blocks).out)
        out = self._outcome(dataclasses.replace(self.state, played=played))
        units = np.zeros((self.batch, self.n), np.int64)
        units[:, :k] = groups
        return dataclasses.replace(out, units=units, prbs=blocks.T.astype(np.int64))

    def _play_slice(self, p: Period, i: int) -> None:
        """Play one slice: cells whose queue stays short in closed form, the others step by step."""
        s, out, w = self.scenario, p.out, self._arriving(p, i)
        u, blocks, target = len(w.carries), p.blocks[i].astype(self.dtype), s.target(i)
        width = FINE_MS if self.episodes.fine[i] else COARSE_MS
        came = w.in_steps.sum(2)
        w.backlog = fluid.lindley(total(w.start), w.work, blocks, width)
        out.packets[i] = w.count.sum(1)
        need = w.start + came
        granted = fluid.water_fill(need, np.maximum(total(need) - w.backlog[:, -1], 0))
        waits = w.backlog.max(1) > blocks * (SHORT * target)
        waits |= (need * w.carries > s.queue).any(0)
        columns = np.flatnonzero(waits)
        if len(columns):
            granted[:, columns] = self._stepwise(p, w, columns)
        out.late[i] += w.missing
        out.late50[i] += w.missing
        fluid.enter(
            w.work,
            w.backlog,
            w.count,
            blocks,
            width,
            s.fixed,
            target,
            out.late[i],
            out.late50[i],
            out.delay[i],
            p.tally(i),
        )
        out.delay[i] /= np.maximum(out.packets[i] - w.missing, 1)
        out.arrived[i, :u], out.work[i, :u] = came * w.carries, came
        out.granted[i, :u], out.served[i, :u] = granted, granted * w.carries

    def _arriving(self, p: Period, i: int) -> SlicePeriod:
        """What waits for a slice and what comes for it; ``backlog`` is still to be found."""
        workload = p.state.workload
        # Rows beyond the most users of this slice are empty.
        u = max(int(workload.users[i].max()), 1)
        carries = p.carries[i, :u]
        inverse = 1 / carries
        coming, number = self.episodes.arrivals(workload, i, p.state.period, inverse)
        start = p.state.played.backlog[i, :u].astype(self.dtype) * inverse
        work, count = np.empty((2, *coming.shape[1:]), self.dtype)
        in_steps = np.empty((u, self.batch, round(self.scenario.period / fluid.STEP)), self.dtype)
        fluid.gather(coming, number, work, count, in_steps)
        missing = np.zeros(self.batch)
        return SlicePeriod(i, start, carries, coming, number, work, count, in_steps, work, missing)

    def _stepwise(self, p: Period, w: SlicePeriod, columns: np.ndarray) -> np.ndarray:
        """Follow single users of busy cells.

        Where bins are fine, delays of busy steps are entered user by user and their packets taken
        out of ``count``; where they are coarse, ``backlog`` becomes what is left after drops, and
        packets lost leave ``count``.

        Returns:
            ``(u, columns)`` work granted.
        """
        s, i, out = self.scenario, w.row, p.out
        u, _, steps = w.in_steps.shape
        m, bins = len(columns), w.coming.shape[2]
        fine, width = bins // steps, s.period / bins
        start, carried = w.start.take(columns, 1), w.carries.take(columns, 1)
        average = p.average[i, :u].take(columns, 1)
        # What the slice does in each step: exact, from its backlog in fine bins.
        level = np.concatenate(
            [total(start)[:, None], w.backlog[columns][:, fine - 1 :: fine]], axis=1
        )
        done = w.work[columns].reshape(m, steps, fine).sum(2) - np.diff(level, axis=1)
        x = stepping.step_users(
            start,
            np.ascontiguousarray(w.in_steps.take(columns, 1).transpose(2, 0, 1)),
            np.ascontiguousarray(np.maximum(done, 0).T),
            carried,
            s.queue / carried,
            average,
            s.scheduler(i),
        )
        p.average[i, :u, columns] = average.T
        out.dropped[i, :u, columns] = (x.dropped * carried).T
        if fine == 1:
            w.backlog[columns] = total(x.waiting[1:], 1).T
            lost = np.ascontiguousarray(x.lost.transpose(1, 2, 0))
            gone = total(w.number.take(columns, 1) * lost)
            w.count[columns] -= gone
            w.missing[columns] += gone.sum(1)
            return x.granted
        blocks = p.blocks[i, columns].astype(self.dtype)
        stepping.follow(
            x.given,
            x.waiting,
            x.lost,
            columns,
            w.backlog[columns].reshape(m, steps, fine).max(2),
            blocks * self.dtype(SHORT * s.target(i)),
            blocks,
            w.coming,
            w.number,
            width,
            s.fixed,
            s.target(i),
            w.count,
            out.late[i],
            out.late50[i],
            out.delay[i],
            w.missing,
            p.tally(i),
        )
        return x.granted
