"""``backend="linux"``: a cell on this kernel's queues, with real packets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.scenario import SlicingScenario
from allocgym.real_backend.prb_slicing.adapter import Adapter, Reading
from allocgym.real_backend.prb_slicing.backend import LiveCell
from allocgym.real_backend.prb_slicing.endpoints import SMALLEST
from allocgym.real_backend.prb_slicing.linux import LinuxPlane

AIR_MS = 1.5
"""What a radio adds to every packet and a wire does not: half a TTI of waiting and a TTI."""
MOST_SCHEDULED = 10_000_000
"""Packets of an episode that are scheduled ahead."""


class LinuxAdapter:
    """The data plane as an `Adapter`: groups become rates by the channel of the moment.

    Args:
        episodes, workload: the episode, at its beginning.
        period: from which it goes on.
        tcp: kinds of slices that are served by TCP.
    """

    def __init__(self, episodes: Any, workload: Any, period: int, tcp: Sequence[str] = ()) -> None:
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
            if count > MOST_SCHEDULED:
                raise AllocgymError(
                    f"horizon: at most {MOST_SCHEDULED} packets in an episode expected, {s.horizon} "
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

    needs: ClassVar[str] = "the Linux kernel's queues, as root"
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
