"""Radio slicing on something real: a control loop in real time around an `Adapter`."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.core.journal import write_json
from allocgym.envs.core.registry import load
from allocgym.envs.core.untrusted import loads
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import SlicingInstance, SlicingOutcome
from allocgym.envs.prb_slicing.scenario import MOST_USERS, SCENARIOS, SlicingScenario
from allocgym.real_backend.prb_slicing.adapter import Adapter, Reading

_EPISODES = "allocgym.simulators.prb_slicing.episodes:Episodes"
"""A live cell plays the simulator's own episodes; looked up by name, not imported."""
AIR_MS = 1.5
"""What a radio adds to every packet and a wire does not: half a TTI of waiting and a TTI."""
SCHEDULER_NUMBERS = {"rr": 0, "wf": 1, "softmax": 2, "pf": 2}
MOST_PACKETS = 10_000_000
"""Packets of an episode that are scheduled ahead."""


class LiveCell(Backend[SlicingOutcome, Shares]):
    """One cell, in real time: ``spend`` applies a split and returns when the period is over.

    It cannot be rewound. A checkpoint holds period, books and the last KPIs; ``restore`` starts
    the adapter anew at that period, puts the split into force again and notes the gap
    (`gap_seconds`; the first outcome after it has ``failure`` 1). An outcome's ``seconds`` run from the
    reading before to its own, the agent's thinking included.

    Args:
        problem: radio slicing.
        scenario: as in the simulator.
        timed: wait for the end of each period (tests of file adapters switch it off).
    """

    scenarios: ClassVar[Mapping[str, SlicingScenario]] = SCENARIOS
    batched: ClassVar[bool] = False
    name: ClassVar[str] = "live"

    def __init__(self, problem: PRBSlicing, scenario: SlicingScenario, timed: bool = True) -> None:
        problem.check_scenario(scenario)
        self.scenario, self.n, self.timed = scenario, problem.n_max, timed
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend=self.name,
            claimants=scenario.claimants,
            n_max=self.n,
            unit=f"group of {scenario.carrier.group} resource blocks",
            horizon=scenario.horizon,
            batch_size=1,
            clock="wall",
            capabilities=frozenset({"restart"}),
            details={"scenario": dataclasses.asdict(scenario)},
        )
        super().__init__(spec, problem)
        self.episodes = load(_EPISODES)(scenario, self.n)
        self.adapter: Adapter | None = None
        self.gap_seconds = 0.0
        self.control_ms: list[tuple[float, float]] = []
        self._seed, self._period, self._due, self._read = 0, 0, 0.0, 0.0
        self._resumed = False

    @classmethod
    def suits(cls, scenario: SlicingScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: a row for each slice, the carrier's groups."""
        return scenario.suited

    @abstractmethod
    def connect(self, workload: Any, period: int) -> Adapter:
        """Start the adapter for an episode at a period.

        Args:
            workload: of the episode, at its beginning (see `simulators.prb_slicing.episodes`).
            period: from which it goes on.
        """

    def _start(self, seed: int, period: int) -> None:
        self.close()
        self._seed, self._period = seed, period
        workload = self.episodes.fresh(np.array([seed]))
        self._instance: SlicingInstance = self.episodes.instance(workload)
        self.adapter = self.connect(workload, period)

    def close(self) -> None:
        """Let go of the adapter. Idempotent."""
        if self.adapter is not None:
            self.adapter.close()
            self.adapter = None

    def _budget(self) -> np.ndarray:
        return np.array([self.scenario.carrier.groups * self.scenario.horizon])

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> SlicingOutcome:
        self._start(int(seeds[0]), 0)
        units = self.scenario.first_split(self.n)[None]
        self._put(units)
        self._due = self._read = time.monotonic()
        return self._report(Reading.empty(self.n, self._instance.active.shape[2]), units, 0.0)

    def _put(self, units: np.ndarray) -> None:
        assert self.adapter is not None
        k = len(self.scenario.slices)
        schedulers = [SCHEDULER_NUMBERS[self.scenario.scheduler(i)] for i in range(k)]
        self.adapter.apply([int(g) for g in units[0, :k]], schedulers)

    def _spend(self, decision: Shares) -> SlicingOutcome:
        if self.adapter is None:
            raise AllocgymError(f"{self.name}: closed; reset() starts it again")
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
        before, self._read = self._read, time.monotonic()
        self.control_ms.append((1e3 * (applied - begun), 1e3 * (done - reading_from)))
        self._period += 1
        outcome = self._report(reading, units.copy(), self._read - before)
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
            state = loads(Path(path).read_text())
            if state["kind"] != "prb-slicing":
                raise CorruptFileError(f"{path}: a checkpoint of {state['kind']!r}")
            seed, period = int(state["seed"]), int(state["period"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorruptFileError(f"{path}: not a checkpoint ({error})") from error
        self._start(seed, period)
        self.ledger.load(state["ledger"])
        self._latest = SlicingOutcome.from_json(state["outcome"])
        self._put(self._latest.units)
        self._due = self._read = time.monotonic()
        self.gap_seconds = max(time.time() - float(state["time"]), 0.0)
        self._resumed = True


class LinuxAdapter:
    """The data plane as an `Adapter`: groups become rates by the channel of the moment.

    Args:
        episodes, workload: the episode, at its beginning.
        period: from which it goes on.
        tcp: kinds of slices that are served by TCP.
    """

    def __init__(self, episodes: Any, workload: Any, period: int, tcp: Sequence[str] = ()) -> None:
        from allocgym.real_backend.prb_slicing.endpoints import SMALLEST
        from allocgym.real_backend.prb_slicing.linux import LinuxPlane

        scenario = self.scenario = episodes.scenario
        self.episodes, self.workload, self._now = episodes, workload, 0
        self.period_ms = scenario.period
        while self._now < period:
            self._move()
        k = self._k = len(scenario.slices)
        users = [int(c) for c in workload.users[:k, 0]]
        schedule = self._schedule(users)
        schedule["size"] = np.maximum(schedule["size"], SMALLEST)
        best = float(episodes.table.max())
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

    def _schedule(self, users: list[int]) -> dict[str, np.ndarray]:
        """Packets from now to the end of the episode, as `LinuxPlane` takes them."""
        s = self.scenario
        numbers = np.zeros((self._k, self.episodes.u), np.int64)
        for number, (i, u) in enumerate((i, u) for i, c in enumerate(users) for u in range(c)):
            numbers[i, u] = number
        columns: dict[str, list[np.ndarray]] = {"time": [], "user": [], "size": [], "last": []}
        count = 0
        for step in range(self._now, s.horizon):
            p = self.episodes.packets(self.workload, 0, step)
            count += len(p.time)
            if count > MOST_PACKETS:
                raise AllocgymError(
                    f"horizon: at most {MOST_PACKETS} packets in an episode expected, {s.horizon} "
                    f"periods have more after {step}"
                )
            at = (p.time + (step - self._now) * s.period) * 1e6
            row = (at, numbers[p.row, p.user], p.size, p.last)
            for key, values in zip(columns, row, strict=True):
                columns[key].append(np.asarray(values).astype(np.int64))
        return {key: np.concatenate(parts) for key, parts in columns.items()}

    def _move(self) -> None:
        self._now += 1
        self.workload = self.episodes.moved(self.workload, np.array([self._now]))

    def apply(self, groups: list[int], schedulers: list[int]) -> None:
        """Set rates: blocks of each slice times what one carries now; the FIFOs share max-min."""
        blocks = self.scenario.carrier.blocks_of(np.array([groups]))[0]
        carries = self.episodes.carries(self.workload)[: self._k, 0, 0]
        self.plane.set_rates([float(b * c * 8000) for b, c in zip(blocks, carries, strict=True)])
        if not self._started:
            self.plane.start(time.clock_gettime_ns(time.CLOCK_MONOTONIC))
            self._started = True

    def read(self) -> Reading:
        """Kernel counters, with the channel they were served under."""
        small = self.plane.read()
        n, u = self.episodes.n, self.episodes.u
        out = Reading.empty(n, u)
        k, v = small.arrived.shape
        for name in ("arrived", "served", "dropped", "backlog"):
            getattr(out, name)[:k, :v] = getattr(small, name)
        for name in ("packets", "late", "late50", "delay"):
            getattr(out, name)[:k] = getattr(small, name)
        carries = self.episodes.carries(self.workload)[:, :, 0]
        per = np.divide(1, carries, out=np.zeros_like(carries), where=carries > 0)
        out.granted, out.work = out.served * per, out.arrived * per
        out.delay = np.where(out.delay > 0, out.delay + AIR_MS, 0.0)
        most = self.scenario.carrier.blocks * self.period_ms
        out.requested = out.granted + np.minimum(out.backlog * per, most)
        out.cqi = self.workload.cqi[:, :, 0].astype(float)
        self._move()
        return out

    def close(self) -> None:
        """End the data plane."""
        self.plane.close()


class LinuxCell(LiveCell):
    """Real packets through this kernel's queues.

    Args:
        problem: radio slicing.
        scenario: as in the simulator, with ``channel="slice"`` (a rate is a slice's).
        tcp: kinds of slices whose users are served by TCP (``("embb",)``); datagrams otherwise.
        timed: see `LiveCell`.
    """

    name = "linux"

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        tcp: tuple[str, ...] | list[str] = (),
        timed: bool = True,
    ) -> None:
        if scenario.channel != "slice" or scenario.pool:
            raise AllocgymError(
                "channel: 'slice' and no pool expected on linux (a rate is a slice's)"
            )
        super().__init__(problem, scenario, timed)
        self.tcp = tuple(tcp)
        for kind in self.tcp:
            if kind not in scenario.slices:
                raise unknown("tcp", kind, scenario.slices)

    @classmethod
    def choose(cls, scenario: Any, changes: Mapping[str, Any]) -> SlicingScenario:
        """See `Backend.choose`; the users of a slice share a channel."""
        chosen: SlicingScenario = super().choose(scenario, {"channel": "slice", **changes})
        return chosen

    def connect(self, workload: Any, period: int) -> Adapter:
        """See `LiveCell.connect`."""
        return LinuxAdapter(self.episodes, workload, period, self.tcp)


class StationCell(LiveCell):
    """Somebody else's base station, which names its users by IMSI.

    Args:
        problem: radio slicing.
        scenario: as in the simulator; its users are those of ``imsis``.
        imsis: slice of each user's IMSI, in the order of users.
        timed: see `LiveCell`.
    """

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        imsis: Mapping[str, int] | None = None,
        timed: bool = True,
    ) -> None:
        if not imsis:
            raise AllocgymError(
                "imsis: the slice of each user's IMSI expected, such as {'1010123456002': 0}; "
                "none given"
            )
        k = len(scenario.slices)
        for imsi, i in imsis.items():
            if not isinstance(i, int) or not 0 <= i < k:
                raise AllocgymError(f"imsis: slices 0 to {k - 1} expected, {imsi} has {i!r}")
        self.imsis = {str(imsi): int(i) for imsi, i in imsis.items()}
        users = [sum(s == i for s in self.imsis.values()) for i in range(k)]
        if max(users) > MOST_USERS:
            raise AllocgymError(f"imsis: at most {MOST_USERS} users in a slice, given {max(users)}")
        mix = "-".join(map(str, users))
        super().__init__(problem, dataclasses.replace(scenario, mix=mix), timed)


class ScopeCell(StationCell):
    """SCOPE's file interface.

    Args:
        problem: radio slicing.
        scenario: see `StationCell`.
        folder: SCOPE's ``scope_config``.
        imsis: slice of each user's IMSI.
        timed: see `LiveCell`.
    """

    name = "scope"

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        folder: str | Path = "",
        imsis: Mapping[str, int] | None = None,
        timed: bool = True,
    ) -> None:
        if not str(folder):
            raise AllocgymError("folder: SCOPE's scope_config expected, none given")
        super().__init__(problem, scenario, imsis, timed)
        self.folder = Path(folder)

    def connect(self, workload: Any, period: int) -> Adapter:
        """See `LiveCell.connect`."""
        from allocgym.real_backend.prb_slicing.scope import ScopeFiles

        return ScopeFiles(self.folder, self.imsis, len(self.scenario.slices), self.n)


class RicCell(StationCell):
    """The near-RT RIC's socket: an xApp that listens where its connector connects.

    Args:
        problem: radio slicing.
        scenario: see `StationCell`.
        imsis: slice of each user's IMSI.
        port: to listen on.
        host: address to listen on.
        timed: see `LiveCell`.
    """

    name = "ric"

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        imsis: Mapping[str, int] | None = None,
        port: int = 4200,
        host: str = "127.0.0.1",
        timed: bool = True,
    ) -> None:
        if not 0 <= port <= 65_535:
            raise AllocgymError(f"port: 0 to 65535 expected, given {port}")
        super().__init__(problem, scenario, imsis, timed)
        self.port, self.host = port, host

    def connect(self, workload: Any, period: int) -> Adapter:
        """See `LiveCell.connect`."""
        from allocgym.real_backend.prb_slicing.ric import RicSocket

        slices = len(self.scenario.slices)
        return RicSocket(self.imsis, slices, self.n, self.host, self.port)
