"""Radio slicing on something real: a control loop in real time around an `Adapter`."""

from __future__ import annotations

import dataclasses
import json
import time
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.core.journal import write_json
from allocgym.envs.core.registry import load
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import SlicingInstance, SlicingOutcome
from allocgym.real_backend.prb_slicing.adapter import Adapter, Reading

# The live cell plays the simulator's own scenarios; looked up by name, not imported.
_SCENARIO = "allocgym.simulators.prb_slicing.scenarios:make"
_WORKLOAD = "allocgym.simulators.prb_slicing.episodes:Workload"
_NAMES = "allocgym.simulators.prb_slicing.backend:claimants"
_FIRST = "allocgym.simulators.prb_slicing.backend:first_split"
AIR_MS = 1.5
"""What a radio adds to every packet and a wire does not: half a TTI of waiting and a TTI."""
SCHEDULER_NUMBERS = {"rr": 0, "wf": 1, "softmax": 2, "pf": 2}


class LiveCell(Backend[SlicingOutcome, Shares]):
    """One cell, in real time: ``spend`` applies a split and returns when the period is over.

    It cannot be rewound. A checkpoint holds period, books and the last KPIs; ``restore`` starts
    the adapter anew at that period, puts the split into force again and notes the gap
    (`gap_seconds`; the first outcome after it has ``failure`` 1).

    Args:
        problem: radio slicing.
        scenario: as in the simulator.
        num_envs: 1.
        timed: wait for the end of each period (tests of file adapters switch it off).
        overrides: fields of the scenario.
    """

    engine = "live"

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: Any = "generated",
        num_envs: int = 1,
        timed: bool = True,
        **overrides: Any,
    ) -> None:
        if num_envs != 1:
            raise AllocgymError(f"num_envs: a live cell is one, given {num_envs}")
        self.scenario = load(_SCENARIO)(scenario, **self._adjust(overrides))
        self.n, self.timed = problem.n_max, timed
        if len(self.scenario.slices) > self.n:
            raise AllocgymError(f"n_max: {len(self.scenario.slices)} slices, {self.n} rows")
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend=self.engine,
            claimants=load(_NAMES)(self.scenario.slices),
            n_max=self.n,
            unit=f"group of {self.scenario.carrier.group} resource blocks",
            horizon=self.scenario.horizon,
            batch_size=1,
            clock="wall",
            capabilities=frozenset({"restart"}),
            details={"scenario": dataclasses.asdict(self.scenario)},
        )
        super().__init__(spec, problem)
        self.adapter: Adapter | None = None
        self.gap_seconds = 0.0
        self.control_ms: list[tuple[float, float]] = []
        self._seed, self._period, self._due = 0, 0, 0.0
        self._resumed = False

    def _adjust(self, overrides: dict[str, Any]) -> dict[str, Any]:
        return overrides

    @abstractmethod
    def connect(self, seed: int, period: int) -> tuple[Adapter, SlicingInstance]:
        """Start the adapter for an episode at a period, and say who is served."""

    def close(self) -> None:
        """Let go of the adapter. Idempotent."""
        if self.adapter is not None:
            self.adapter.close()
            self.adapter = None

    def _budget(self) -> np.ndarray:
        return np.array([self.scenario.carrier.groups * self.scenario.horizon])

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> SlicingOutcome:
        self.close()
        self._seed, self._period = int(seeds[0]), 0
        self.adapter, self._instance = self.connect(self._seed, 0)
        units = load(_FIRST)(self.scenario, self.n)[None]
        self._put(units)
        self._due = time.monotonic()
        reading = Reading.empty(self.n, self._instance.active.shape[2])
        return self._report(reading, units, 0.0)

    def _put(self, units: np.ndarray) -> None:
        assert self.adapter is not None
        k = len(self.scenario.slices)
        schedulers = [SCHEDULER_NUMBERS[self.scenario.scheduler(i)] for i in range(k)]
        self.adapter.apply([int(g) for g in units[0, :k]], schedulers)

    def _spend(self, decision: Shares) -> SlicingOutcome:
        if self.adapter is None:
            raise AllocgymError(f"{self.engine}: closed; reset() starts it again")
        begun = time.perf_counter()
        units = np.asarray(decision.units)
        self._put(units)
        applied = time.perf_counter()
        self._due += self.scenario.period / 1000
        if self.timed:
            time.sleep(max(self._due - time.monotonic(), 0.0))
            if time.monotonic() - self._due > self.scenario.period / 1000:
                self._due = time.monotonic()
        reading_from = time.perf_counter()
        reading = self.adapter.read()
        done = time.perf_counter()
        self.control_ms.append((1e3 * (applied - begun), 1e3 * (done - reading_from)))
        self._period += 1
        outcome = self._report(reading, units.copy(), done - begun)
        if self._resumed:
            outcome.failure[:] = 1
            self._resumed = False
        return outcome

    def _report(self, r: Reading, units: np.ndarray, seconds: float) -> SlicingOutcome:
        inst = self._instance
        work = r.granted + np.maximum(r.arrived - r.served, 0) * np.divide(
            r.granted, r.served, out=np.zeros_like(r.served), where=r.served > 0
        )
        if r.work is not None:
            work = r.work
        return SlicingOutcome(
            spent=units.sum(1) if self._period else np.zeros(1, np.int64),
            seconds=np.array([seconds]),
            ready=inst.present.copy(),
            valid=np.array([r.valid]),
            failure=np.zeros(1, np.int64),
            done=np.array([self._period >= self.scenario.horizon]),
            units=units,
            prbs=self.scenario.carrier.blocks_of(units),
            arrived=r.arrived[None],
            served=r.served[None],
            dropped=r.dropped[None],
            backlog=r.backlog[None],
            work=work[None],
            granted=r.granted[None],
            requested=r.requested[None],
            cqi=r.cqi[None],
            packets=r.packets[None],
            late=r.late[None],
            late50=r.late50[None],
            delay=r.delay[None],
            period=np.array([self._period]),
            instance=inst,
        )

    def checkpoint(self, path: Path) -> None:
        """Write period, books and last KPIs."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "kind": "prb-slicing",
            "seed": self._seed,
            "period": self._period,
            "ledger": self.ledger.to_json(),
            "outcome": self.outcome.to_json(),
            "time": time.time(),
        }
        write_json(path, state)

    def restore(self, path: Path) -> None:
        """Go on at a checkpoint's period, with its split in force.

        Raises:
            CorruptFileError: not a checkpoint of a live cell.
        """
        try:
            state = json.loads(Path(path).read_text())
            if state["kind"] != "prb-slicing":
                raise CorruptFileError(f"{path}: a checkpoint of {state['kind']!r}")
            seed, period = int(state["seed"]), int(state["period"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(f"{path}: not a checkpoint ({error})") from error
        self.close()
        self._seed, self._period = seed, period
        self.adapter, self._instance = self.connect(seed, period)
        self.ledger.load(state["ledger"])
        self._outcome = SlicingOutcome.from_json(state["outcome"])
        self._put(self._outcome.units)
        self._due = time.monotonic()
        self.gap_seconds = max(time.time() - float(state["time"]), 0.0)
        self._resumed = True


class LinuxAdapter:
    """The data plane as an `Adapter`: groups become rates by the channel of the moment."""

    def __init__(
        self, workload: Any, scenario: Any, period: int, tcp: tuple[str, ...] = ()
    ) -> None:
        from allocgym.real_backend.prb_slicing.linux import LinuxPlane

        self.workload, self.scenario = workload, scenario
        self.period_ms = scenario.period
        k = len(scenario.slices)
        self._k, self._now = k, period
        for step in range(1, period + 1):
            workload.next_channel(np.array([step]))
        users = [int(c) for c in workload.users[:k, 0]]
        numbers = np.zeros((k, workload.u), np.int64)
        for number, (i, u) in enumerate((i, u) for i, c in enumerate(users) for u in range(c)):
            numbers[i, u] = number
        columns: dict[str, list[np.ndarray]] = {"time": [], "user": [], "size": [], "last": []}
        for step in range(period, scenario.horizon):
            p = workload.packets(0, step)
            at = (p.time + (step - period) * scenario.period) * 1e6
            for key, values in (
                ("time", at),
                ("user", numbers[p.row, p.user]),
                ("size", p.size),
                ("last", p.last),
            ):
                columns[key].append(np.asarray(values).astype(np.int64))
        from allocgym.real_backend.prb_slicing.endpoints import SMALLEST

        schedule = {key: np.concatenate(parts) for key, parts in columns.items()}
        schedule["size"] = np.maximum(schedule["size"], SMALLEST)
        best = float(workload.table.max())
        self.plane = LinuxPlane(
            users,
            [scenario.target(i) - AIR_MS for i in range(k)],
            schedule,
            cell=scenario.carrier.blocks * best * 8000,
            queue=scenario.queue,
            period_ms=scenario.period,
            borrow=scenario.borrow,
            streams=[kind in tcp for kind in scenario.slices],
        )
        self._started = False

    def apply(self, groups: list[int], schedulers: list[int]) -> None:
        """Set rates: blocks of each slice times what one carries now; the FIFOs share max-min."""
        blocks = self.scenario.carrier.blocks_of(np.array([groups]))[0]
        carries = self.workload.carries()[: self._k, 0, 0]
        self.plane.set_rates([float(b * c * 8000) for b, c in zip(blocks, carries, strict=True)])
        if not self._started:
            self.plane.start(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            self._started = True

    def read(self) -> Reading:
        """Kernel counters, with the channel they were served under."""
        small = self.plane.read()
        n, u = self.workload.n, self.workload.u
        out = Reading.empty(n, u)
        k, v = small.arrived.shape
        for name in ("arrived", "served", "dropped", "backlog"):
            getattr(out, name)[:k, :v] = getattr(small, name)
        for name in ("packets", "late", "late50", "delay"):
            getattr(out, name)[:k] = getattr(small, name)
        carries = self.workload.carries()[:, :, 0]
        per = np.divide(1, carries, out=np.zeros_like(carries), where=carries > 0)
        out.granted, out.work = out.served * per, out.arrived * per
        out.delay = np.where(out.delay > 0, out.delay + AIR_MS, 0.0)
        most = self.scenario.carrier.blocks * self.period_ms
        out.requested = out.granted + np.minimum(out.backlog * per, most)
        out.cqi = self.workload.cqi[:, :, 0].astype(float)
        self._now += 1
        self.workload.next_channel(np.array([self._now]))
        return out

    def close(self) -> None:
        """End the data plane."""
        self.plane.close()


class LinuxCell(LiveCell):
    """Real packets through this kernel's queues.

    Args:
        problem: radio slicing.
        tcp: kinds of slices whose users are served by TCP (``("embb",)``); datagrams otherwise.
        arguments: of `LiveCell`.
    """

    engine = "linux"

    def __init__(
        self, problem: PRBSlicing, tcp: tuple[str, ...] | list[str] = (), **arguments: Any
    ) -> None:
        super().__init__(problem, **arguments)
        self.tcp = tuple(tcp)
        for kind in self.tcp:
            if kind not in self.scenario.slices:
                raise unknown("tcp", kind, self.scenario.slices)

    def _adjust(self, overrides: dict[str, Any]) -> dict[str, Any]:
        if overrides.get("channel", "slice") != "slice" or overrides.get("pool"):
            raise AllocgymError("linux: channel='slice' and no pool expected (a rate is a slice's)")
        return {**overrides, "channel": "slice"}

    def connect(self, seed: int, period: int) -> tuple[Adapter, SlicingInstance]:
        """See `LiveCell.connect`."""
        workload = load(_WORKLOAD)(self.scenario, np.array([seed]), self.n)
        return LinuxAdapter(workload, self.scenario, period, self.tcp), workload.instance()


class AdaptedCell(LiveCell):
    """Somebody else's base station behind an adapter.

    Args:
        problem: radio slicing.
        make: builds the adapter when an episode starts.
        users: users of each slice.
        engine: name of the back end.
        arguments: of `LiveCell`.
    """

    def __init__(
        self,
        problem: PRBSlicing,
        make: Callable[[], Adapter],
        users: list[int],
        engine: str,
        **arguments: Any,
    ) -> None:
        self.engine = engine
        self._make, self._users = make, users
        super().__init__(problem, mix="-".join(map(str, users)), **arguments)

    def connect(self, seed: int, period: int) -> tuple[Adapter, SlicingInstance]:
        """See `LiveCell.connect`."""
        workload = load(_WORKLOAD)(self.scenario, np.array([seed]), self.n)
        return self._make(), workload.instance()


def linux_backend(problem: PRBSlicing, **arguments: Any) -> LinuxCell:
    """Build the Linux data plane."""
    return LinuxCell(problem, **arguments)


def scope_backend(
    problem: PRBSlicing, folder: str, imsis: dict[str, int], **arguments: Any
) -> AdaptedCell:
    """Build the SCOPE file interface.

    Args:
        problem: radio slicing.
        folder: SCOPE's ``scope_config``.
        imsis: slice of each user's IMSI.
        arguments: of `LiveCell`.
    """
    from allocgym.real_backend.prb_slicing.scope import ScopeFiles

    slices = len(arguments.get("slices", "...")) if "slices" in arguments else 3
    users = [sum(s == i for s in imsis.values()) for i in range(slices)]
    make = lambda: ScopeFiles(Path(folder), dict(imsis), slices, problem.n_max)  # noqa: E731
    return AdaptedCell(problem, make, users, "scope", **arguments)


def ric_backend(
    problem: PRBSlicing,
    imsis: dict[str, int],
    port: int = 4200,
    host: str = "127.0.0.1",
    **arguments: Any,
) -> AdaptedCell:
    """Build the near-RT RIC's socket: an xApp that listens where its connector connects.

    Args:
        problem: radio slicing.
        imsis: slice of each user's IMSI.
        port: to listen on.
        host: address to listen on.
        arguments: of `LiveCell`.
    """
    from allocgym.real_backend.prb_slicing.ric import RicSocket

    users = [sum(s == i for s in imsis.values()) for i in range(3)]
    make = lambda: RicSocket(dict(imsis), 3, problem.n_max, host, port)  # noqa: E731
    return AdaptedCell(problem, make, users, "ric", **arguments)
