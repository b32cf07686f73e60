"""Radio slicing simulated: what both engines share, and the batched fluid twin."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from typing import Any

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import SlicingOutcome
from allocgym.simulators.prb_slicing import fluid, scenarios, stepping
from allocgym.simulators.prb_slicing.episodes import COARSE_MS, FINE_MS, Workload
from allocgym.simulators.prb_slicing.fluid import Played

SHORT = 0.6
"""A slice whose queue stays below this part of its delay target is not stepped user by user."""

DTYPES = {"float32": np.float32, "float64": np.float64}


class SimulatedCell(Backend[SlicingOutcome, Shares]):
    """A batch of cells; an engine fills in `play`.

    Args:
        problem: radio slicing.
        scenario: a name of `scenarios.SCENARIOS`, or a `Scenario`.
        num_envs: cells.
        histogram: keep ``histogram (n, batch, CELLS)``, packets by delay, for quantiles.
        overrides: fields of `Scenario`, by keyword.
    """

    engine = ""

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: str | scenarios.Scenario = "generated",
        num_envs: int = 1,
        histogram: bool = False,
        **overrides: Any,
    ) -> None:
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        self.scenario = scenarios.make(scenario, **overrides)
        if problem.actions == "splits" and problem.groups != self.scenario.carrier.groups:
            raise AllocgymError(
                f"groups: {self.scenario.carrier.groups} in this carrier, given {problem.groups}"
            )
        self.n, self.u, self.batch = problem.n_max, self.scenario.users, num_envs
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend=self.engine,
            claimants=claimants(self.scenario.slices),
            n_max=problem.n_max,
            unit=f"group of {self.scenario.carrier.group} resource blocks",
            horizon=self.scenario.horizon,
            batch_size=num_envs,
            capabilities=frozenset({"state", "oracle"}),
            details={"scenario": dataclasses.asdict(self.scenario)},
        )
        super().__init__(spec, problem)
        self.histogram = np.zeros((self.n, num_envs, fluid.CELLS)) if histogram else None
        self._workload: Workload | None = None
        self.queue = np.zeros((self.n, self.u, num_envs))

    @property
    def workload(self) -> Workload:
        """Users, traffic and channels of the running episodes."""
        if self._workload is None:
            raise AllocgymError("backend: call reset() first")
        return self._workload

    @abstractmethod
    def play(self, blocks: np.ndarray, period: np.ndarray) -> Played:
        """Play one period with ``(n, batch)`` blocks."""

    def start(self, where: np.ndarray) -> None:
        """Empty the queues of new episodes."""
        self.queue = np.where(where, 0.0, self.queue)

    def _budget(self) -> np.ndarray:
        return np.full(self.batch, self.scenario.carrier.groups * self.scenario.horizon)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> SlicingOutcome:
        if self._workload is None:
            self._workload = Workload(self.scenario, seeds, self.n)
        else:
            self._workload.begin(seeds, where)
        self.start(where)
        if self.histogram is not None:
            self.histogram[:, where] = 0
        instance = self._workload.instance()
        units = np.tile(first_split(self.scenario, self.n), (self.batch, 1))
        nothing = Played.empty(self.n, self.u, self.batch)
        zero = np.zeros(self.batch, np.int64)
        fresh = self._report(nothing, units, zero, instance)
        self._period = np.where(where, 0, getattr(self, "_period", zero))
        if where.all() or self._outcome is None:
            return fresh
        return self.outcome.where(where, fresh)

    def _spend(self, decision: Shares) -> SlicingOutcome:
        units = np.asarray(decision.units)
        blocks = self.scenario.carrier.blocks_of(units).T.astype(float)
        played = self.play(blocks, self._period)
        self._period = self._period + 1
        outcome = self._report(played, units.copy(), self._period, self.outcome.instance)
        self.workload.next_channel(self._period)
        return outcome

    def _report(
        self, p: Played, units: np.ndarray, period: np.ndarray, instance: Any
    ) -> SlicingOutcome:
        seconds = self.scenario.period / 1000
        spent = np.where(period > 0, units.sum(1), 0)

        def rows(array: np.ndarray) -> np.ndarray:
            return array.transpose(2, 0, 1).astype(np.float64)

        carries = self.workload.carries()
        waiting = p.backlog / np.maximum(carries, 1e-9)
        most = self.scenario.carrier.blocks * self.scenario.period
        requested = p.granted + np.minimum(waiting, most)
        return SlicingOutcome(
            spent=spent,
            seconds=np.where(period > 0, seconds, 0.0),
            ready=instance.present.copy(),
            valid=np.ones(self.batch, bool),
            failure=np.zeros(self.batch, np.int64),
            done=period >= self.scenario.horizon,
            units=units,
            prbs=self.scenario.carrier.blocks_of(units),
            arrived=rows(p.arrived),
            served=rows(p.served),
            dropped=rows(p.dropped),
            backlog=rows(p.backlog),
            work=rows(p.work),
            granted=rows(p.granted),
            requested=rows(requested),
            cqi=rows(self.workload.cqi),
            packets=p.packets.T.copy(),
            late=p.late.T.copy(),
            late50=p.late50.T.copy(),
            delay=p.delay.T.copy(),
            period=period.copy(),
            instance=instance,
        )


def claimants(slices: tuple[str, ...]) -> tuple[str, ...]:
    """Names of slices; a second one of a kind gets a number."""
    names: list[str] = []
    for kind in slices:
        count = sum(name.split("-")[0] == kind for name in names)
        names.append(kind if count == 0 else f"{kind}-{count + 1}")
    return tuple(names)


def first_split(scenario: scenarios.Scenario, n_max: int) -> np.ndarray:
    """The split in force before the first decision: TRACTOR's (3, 5, 9), elsewhere equal."""
    n, groups = len(scenario.slices), scenario.carrier.groups
    units = np.zeros(n_max, np.int64)
    if n == 3 and groups == 17:
        units[:3] = (3, 5, 9)
    else:
        units[:n] = groups // n
        units[: groups % n] += 1
    return units


class FluidCell(SimulatedCell):
    """The batched twin: a fluid model, exact in work, approximate in who waits for whom.

    Slices with a tight delay target are stepped at 1 ms, others at 10 ms. ``dtype`` is that of
    the inner arithmetic.
    """

    engine = "twin"
    changing = ("queue", "_period", "_average")

    def __init__(self, problem: PRBSlicing, dtype: str = "float64", **arguments: Any) -> None:
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        self.dtype = DTYPES[dtype]
        super().__init__(problem, **arguments)
        self._average = np.full((self.n, self.u, self.batch), 1.0)

    def get_state(self) -> dict[str, Any]:
        """See `Backend.get_state`; the channels too."""
        w = self.workload
        return super().get_state() | {
            "x": w._x.copy(),
            "cqi": w.cqi.copy(),
            "seeds": w.seeds.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of a back end with the same arguments."""
        if self._workload is None:
            self.reset(state["seeds"])
        super().set_state(state)
        w = self.workload
        w.begin(state["seeds"], np.ones(self.batch, bool))
        w._x, w.cqi = state["x"].copy(), state["cqi"].copy()

    def _spend(self, decision: Shares) -> SlicingOutcome:
        outcome = super()._spend(decision)
        self.queue = outcome.backlog.transpose(1, 2, 0).copy()
        return outcome

    def play(self, blocks: np.ndarray, period: np.ndarray, keep: bool = True) -> Played:
        """See `SimulatedCell.play`; ``keep=False`` leaves no trace (for clairvoyant agents)."""
        s = self.scenario
        out = Played.empty(self.n, self.u, self.batch)
        carries = self.workload.carries().astype(self.dtype)
        average = self._average.copy()
        histogram = self.histogram if keep else None
        if s.borrow or s.pool:
            from allocgym.simulators.prb_slicing.joint import play_joint

            play_joint(self, blocks, period, carries, out, histogram)
        else:
            for i in range(len(s.slices)):
                # Rows beyond the most users of this slice are empty.
                u = max(int(self.workload.users[i].max()), 1)
                part = carries[i, :u]
                self._slice(i, blocks[i].astype(self.dtype), period, part, out, histogram)
        if not keep:
            self._average = average
        out.backlog = self.queue + out.arrived - out.served - out.dropped
        np.maximum(out.backlog, 0, out=out.backlog)
        return out

    def preview(self, groups: int) -> SlicingOutcome:
        """The coming period's outcome if every slice had ``groups`` groups (hard masks only).

        The last slice has the carrier's last, smaller group; clairvoyant agents put splits
        together from these.

        Raises:
            AllocgymError: slices are coupled, by borrowing or by sharing everything.
        """
        s = self.scenario
        if s.borrow or s.pool:
            raise AllocgymError("preview: slices with hard masks expected, given borrow or pool")
        k = len(s.slices)
        sizes = s.carrier.sizes
        blocks = np.zeros((self.n, self.batch))
        blocks[:k] = groups * s.carrier.group
        blocks[k - 1] = sizes[len(sizes) - groups :].sum()
        played = self.play(blocks, self._period, keep=False)
        units = np.zeros((self.batch, self.n), np.int64)
        units[:, :k] = groups
        out = self._report(
            played, first_split(s, self.n) + 0 * units, self._period, self.outcome.instance
        )
        out.units, out.prbs = units, blocks.T.astype(np.int64)
        return out

    def _slice(
        self,
        i: int,
        blocks: np.ndarray,
        period: np.ndarray,
        carries: np.ndarray,
        out: Played,
        histogram: np.ndarray | None,
    ) -> None:
        """Play one slice: cells whose queue stays short in closed form, the others step by step."""
        s, fine = self.scenario, self.workload.fine[i]
        width = FINE_MS if fine else COARSE_MS
        inverse = 1 / carries
        coming, number = self.workload.arrivals(i, period, inverse)
        u, steps = len(carries), round(s.period / fluid.STEP)
        start = self.queue[i, :u].astype(self.dtype) * inverse
        work, count = np.empty((2, *coming.shape[1:]), self.dtype)
        in_steps = np.empty((u, self.batch, steps), self.dtype)
        fluid.gather(coming, number, work, count, in_steps)
        total = in_steps.sum(2)
        backlog = fluid.lindley(start.sum(0), work, blocks, width)
        out.packets[i] = count.sum(1)
        missing = np.zeros(self.batch)
        need = start + total
        granted = need
        if (backlog[:, -1] > 0).any():
            granted = fluid.water_fill(need, np.maximum(need.sum(0) - backlog[:, -1], 0))
        waits = backlog.max(1) > blocks * (SHORT * s.target(i))
        waits |= (need * carries > s.queue).any(0)
        counts = np.zeros((0, fluid.CELLS)) if histogram is None else histogram[i]
        if waits.any():
            columns = np.flatnonzero(waits)
            granted[:, columns] = self._stepwise(
                i,
                columns,
                start,
                coming,
                in_steps[:, columns],
                number,
                blocks,
                carries,
                work,
                backlog,
                count,
                missing,
                out,
                counts,
            )
        out.late[i] += missing
        out.late50[i] += missing
        fluid.enter(
            work,
            backlog,
            count,
            blocks,
            width,
            s.fixed,
            s.target(i),
            out.late[i],
            out.late50[i],
            out.delay[i],
            counts,
        )
        out.delay[i] /= np.maximum(out.packets[i] - missing, 1)
        out.arrived[i, :u], out.work[i, :u] = total * carries, total
        out.granted[i, :u], out.served[i, :u] = granted, granted * carries

    def _stepwise(
        self,
        i: int,
        columns: np.ndarray,
        start: np.ndarray,
        coming: np.ndarray,
        in_steps: np.ndarray,
        number: np.ndarray,
        blocks: np.ndarray,
        carries: np.ndarray,
        work: np.ndarray,
        backlog: np.ndarray,
        count: np.ndarray,
        missing: np.ndarray,
        out: Played,
        counts: np.ndarray,
    ) -> np.ndarray:
        """Follow single users of busy cells.

        Where bins are fine, delays of busy steps are entered user by user and their packets taken
        out of ``count``; where they are coarse, ``backlog`` becomes what is left after drops, and
        packets lost leave ``count``.

        Returns:
            ``(u, columns)`` work granted.
        """
        s = self.scenario
        u, m, steps = in_steps.shape
        bins = coming.shape[2]
        fine, width = bins // steps, s.period / bins
        carried, average = carries[:, columns], self._average[i, :u, columns].T.copy()
        # What the slice does in each step: exact, from its backlog in fine bins.
        level = np.concatenate(
            [start[:, columns].sum(0)[:, None], backlog[columns][:, fine - 1 :: fine]], axis=1
        )
        done = work[columns].reshape(m, steps, fine).sum(2) - np.diff(level, axis=1)
        in_order = np.ascontiguousarray(in_steps.transpose(2, 0, 1))
        x = stepping.step_users(
            start[:, columns],
            in_order,
            np.ascontiguousarray(np.maximum(done, 0).T),
            carried,
            s.queue / carried,
            average,
            s.scheduler(i),
        )
        self._average[i, :u, columns] = average.T
        out.dropped[i, :u, columns] = (x.dropped * carried).T
        if fine == 1:
            backlog[columns] = x.waiting[1:].sum(1).T
            gone = (number[:, columns] * x.lost.transpose(1, 2, 0)).sum(0)
            count[columns] -= gone
            missing[columns] += gone.sum(1)
            return x.granted
        stepping.follow(
            x.given,
            x.waiting,
            x.lost,
            columns,
            backlog[columns].reshape(m, steps, fine).max(2),
            blocks[columns] * self.dtype(SHORT * s.target(i)),
            blocks[columns],
            coming,
            number,
            width,
            s.fixed,
            s.target(i),
            count,
            out.late[i],
            out.late50[i],
            out.delay[i],
            missing,
            counts,
        )
        return x.granted


def twin_backend(problem: PRBSlicing, **arguments: Any) -> FluidCell:
    """Build the batched twin."""
    return FluidCell(problem, **arguments)


def simpy_backend(problem: PRBSlicing, **arguments: Any) -> SimulatedCell:
    """Build the SimPy reference."""
    from allocgym.simulators.prb_slicing.packets import PacketCell

    return PacketCell(problem, **arguments)
