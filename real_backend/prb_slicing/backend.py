"""Radio slicing on something real: a control loop in real time around an `Adapter`."""

from __future__ import annotations

import dataclasses
import time
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import write_json
from allocgym.envs.core.registry import load
from allocgym.envs.core.untrusted import loads
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import SlicingInstance, SlicingOutcome
from allocgym.envs.prb_slicing.scenario import MOST_USERS, SCENARIOS, SlicingScenario
from allocgym.real_backend.prb_slicing.adapter import Adapter, Reading

_EPISODES = "allocgym.simulators.prb_slicing.episodes:Episodes"
"""A live cell plays the simulator's own episodes; looked up by name, not imported."""
SCHEDULER_NUMBERS = {"rr": 0, "wf": 1, "softmax": 2, "pf": 2}


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
