"""The SimPy reference: single packets, a scheduler at every busy TTI, the control loop a process.

Slower than the fluid twin and closer to a base station: packets wait in a FIFO per user, blocks
are handed out at TTI boundaries (whole ones, where asked for), a scheduler picks users,
transmissions may fail.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from allocgym.envs.core import randomness
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.simulators.prb_slicing import fluid
from allocgym.simulators.prb_slicing.backend import SimulatedCell
from allocgym.simulators.prb_slicing.fluid import Played

TTI = 1.0
WINDOW = 50.0
"""TTIs over which proportional fair remembers a user's rate."""


class User:
    """A user's queue: packets as ``[bytes left, time of arrival, ends a recorded packet]``."""

    __slots__ = ("average", "carries", "row", "served", "sizes", "user", "waiting")

    def __init__(self, row: int, user: int) -> None:
        self.row, self.user = row, user
        self.sizes: deque[list[float]] = deque()
        self.waiting = 0.0
        self.carries = 1.0
        self.average = 1.0
        self.served = 0.0


class Cell:
    """One cell: a SimPy environment with traffic, a base station and the control loop.

    Args:
        owner: the back end (scenario, workload, histogram).
        column: which cell of the batch.
    """

    def __init__(self, owner: PacketCell, column: int) -> None:
        self.owner, self.column = owner, column
        self.scenario = owner.scenario
        self.env = simpy.Environment()
        n = len(self.scenario.slices)
        users = owner.workload.users[:, column]
        self.users = [[User(i, u) for u in range(int(users[i]))] for i in range(n)]
        self.blocks = [0] * n
        self.done = [0] * n
        self.pending = list(self.blocks)
        self.targets = [self.scenario.target(i) for i in range(n)]
        self.schedulers = [self.scenario.scheduler(i) for i in range(n)]
        self.backlogged = [0.0] * n
        self.wake = self.env.event()
        self.turn = 0
        self.whole = self.scenario.whole_blocks
        self.failures = randomness.stream(owner.workload.seeds[column : column + 1], "HARQ", 1)[
            :, 0
        ]
        self.env.process(self._control())
        self.env.process(self._station())

    def _control(self) -> Generator[simpy.Event]:
        """Each period: masks are reloaded, channels move on, traffic of the period is queued."""
        period = 0
        while True:
            self.blocks = self.pending
            carries = self.owner.workload.carries()[:, :, self.column]
            for i, users in enumerate(self.users):
                for u, user in enumerate(users):
                    user.carries = float(carries[i, u])
            self.env.process(self._traffic(period))
            yield self.env.timeout(self.scenario.period)
            period += 1

    def _traffic(self, period: int) -> Generator[simpy.Event]:
        """Packets of a period, one event per distinct time."""
        begin = period * self.scenario.period
        packets = self.owner.workload.packets(self.column, period)
        rows = zip(
            packets.time.tolist(),
            packets.size.tolist(),
            packets.row.tolist(),
            packets.user.tolist(),
            packets.last.tolist(),
            strict=True,
        )
        most, out = self.scenario.queue, self.out
        for time, size, i, u, last in rows:
            at = begin + time
            if at > self.env.now:
                yield self.env.timeout(at - self.env.now)
            user = self.users[i][u]
            out.arrived[i, u, self.column] += size
            out.work[i, u, self.column] += size / user.carries
            out.packets[i, self.column] += last
            if user.waiting + size > most:
                out.dropped[i, u, self.column] += size
                out.late[i, self.column] += last
                out.late50[i, self.column] += last
                continue
            user.sizes.append([size, at, last])
            user.waiting += size
            self.backlogged[i] += size
            if not self.wake.triggered:
                self.wake.succeed()

    def _station(self) -> Generator[simpy.Event]:
        """Schedule at every TTI boundary while somebody waits; sleep otherwise."""
        env = self.env
        while True:
            if max(self.backlogged) <= 0:
                self.wake = env.event()
                yield self.wake
            # What arrives within a TTI is scheduled at the next boundary.
            boundary = math.floor(env.now / TTI + 1e-9) * TTI + TTI
            yield env.timeout(boundary - env.now)
            while max(self.backlogged) > 0:
                self._schedule(env.now)
                yield env.timeout(TTI)

    def _schedule(self, now: float) -> None:
        s = self.scenario
        self.turn += 1
        if s.pool:
            everybody = [u for users in self.users for u in users if u.waiting > 0]
            self._share(everybody, float(s.carrier.blocks), "wf", now)
            return
        left = 0.0
        for i, users in enumerate(self.users):
            if self.backlogged[i] <= 0:
                left += self.blocks[i]
                continue
            busy = [u for u in users if u.waiting > 0]
            left += self._share(busy, self.blocks[i], self.schedulers[i], now)
        if s.borrow and left > 0:
            everybody = [u for users in self.users for u in users if u.waiting > 0]
            if everybody:
                self._share(everybody, left, "wf", now)

    def _share(self, users: list[User], blocks: float, scheduler: str, now: float) -> float:
        """Give blocks to users by a scheduler's rule; return those left over."""
        if len(users) == 1:
            user = users[0]
            grant = min(blocks, self._need(user))
            self._send(user, grant, now)
            return blocks - grant
        needs = [self._need(u) for u in users]
        if sum(needs) <= blocks:
            grants = needs
        elif scheduler == "rr":
            grants = round_robin(needs, blocks, self.turn)
        elif scheduler == "softmax":
            grants = softmax(needs, blocks)
        elif scheduler == "pf":
            grants = proportional_fair(needs, blocks, [u.carries / u.average for u in users])
        else:
            grants = (
                water(needs, blocks) if not self.whole else whole_water(needs, blocks, self.turn)
            )
        for user, grant in zip(users, grants, strict=True):
            if grant:
                self._send(user, grant, now)
            if scheduler == "pf":
                user.average += (user.served - user.average) / WINDOW
                user.served = 0.0
        return blocks - sum(grants)

    def _need(self, user: User) -> float:
        """Blocks that would empty a queue in this TTI."""
        need = user.waiting / user.carries
        return math.ceil(need - 1e-9) if self.whole else need

    def _send(self, user: User, blocks: float, now: float) -> None:
        """Send from the head of a queue; a packet is delivered when its last byte is."""
        room = blocks * user.carries
        if self.scenario.harq > 0:
            # `carries` is the mean over failures; one attempt carries more or nothing.
            chance = randomness.uniform(self.failures, self.turn * 64 + user.row)[0]
            if chance < self.scenario.harq:
                return
            room /= 1 - self.scenario.harq
        out, i, column = self.out, user.row, self.column
        u = user.user
        sent = min(room, user.waiting)
        user.waiting -= sent
        user.served += sent
        self.backlogged[i] -= sent
        out.served[i, u, column] += sent
        out.granted[i, u, column] += sent / user.carries
        end = now + TTI + self.scenario.fixed
        target, sizes = self.targets[i], user.sizes
        while sizes and sent > -1e-6:
            head = sizes[0]
            if head[0] > sent + 1e-6:
                head[0] -= sent
                break
            sent -= head[0]
            if head[2]:
                delay = end - head[1]
                out.delay[i, column] += delay
                self.done[i] += 1
                out.late[i, column] += delay > target
                out.late50[i, column] += delay > 50.0
                self.owner.count(i, column, delay)
            sizes.popleft()
        if user.waiting < 1e-6:
            self.backlogged[i] -= user.waiting
            user.waiting = 0.0
            sizes.clear()
        if self.backlogged[i] < 1e-6:
            self.backlogged[i] = 0.0

    def advance(self, blocks: list[int], out: Played) -> None:
        """Play one period with the given blocks."""
        self.pending, self.out = blocks, out
        self.done = [0] * len(self.users)
        if self.env.now == 0:
            self.blocks = blocks
        self.env.run(until=round(self.env.now / self.scenario.period + 1) * self.scenario.period)
        for i, users in enumerate(self.users):
            out.delay[i, self.column] /= max(self.done[i], 1)
            for u, user in enumerate(users):
                out.backlog[i, u, self.column] = user.waiting


def round_robin(needs: list[float], blocks: float, turn: int) -> list[float]:
    """SCOPE's policy 0: one user first, which takes what it needs, then the next."""
    grants = [0.0] * len(needs)
    for k in range(len(needs)):
        j = (turn + k) % len(needs)
        grants[j] = min(needs[j], blocks)
        blocks -= grants[j]
    return grants


def water(needs: list[float], blocks: float) -> list[float]:
    """SCOPE's policy 1: equal rounds until everybody has enough or nothing is left (max-min)."""
    grants = [0.0] * len(needs)
    left = len(needs)
    for j in sorted(range(left), key=needs.__getitem__):
        grants[j] = min(needs[j], blocks / left)
        blocks -= grants[j]
        left -= 1
    return grants


def whole_water(needs: list[float], blocks: float, turn: int) -> list[float]:
    """The same in whole blocks; who gets the odd ones takes turns."""
    grants = [float(math.floor(g)) for g in water(needs, blocks)]
    rest = int(blocks - sum(grants))
    for k in range(len(needs)):
        j = (turn + k) % len(needs)
        if rest and grants[j] < needs[j]:
            grants[j] += 1
            rest -= 1
    return grants


def softmax(needs: list[float], blocks: float) -> list[float]:
    """SCOPE's policy 2: floor of the softmax of requests, the rest to who lacks most."""
    top = max(needs)
    weights = [math.exp(min(n, 110) - min(top, 110)) if n else 0.0 for n in needs]
    whole = sum(weights) or 1.0
    grants = [min(n, w / whole * blocks) for n, w in zip(needs, weights, strict=True)]
    rest = blocks - sum(grants)
    order = sorted(range(len(needs)), key=lambda j: grants[j] - needs[j])
    for j in order:
        more = min(rest, needs[j] - grants[j])
        grants[j] += more
        rest -= more
    return grants


def proportional_fair(needs: list[float], blocks: float, metric: list[float]) -> list[float]:
    """In the order of rate over average rate, each user takes what it needs."""
    grants = [0.0] * len(needs)
    for j in sorted(range(len(needs)), key=lambda k: -metric[k]):
        grants[j] = min(needs[j], blocks)
        blocks -= grants[j]
    return grants


class PacketCell(SimulatedCell):
    """The reference: event by event, one cell of the batch after another."""

    engine = "simpy"

    def __init__(self, problem: PRBSlicing, **arguments: Any) -> None:
        super().__init__(problem, **arguments)
        self._cells: list[Cell] = []

    def start(self, where: np.ndarray) -> None:
        """See `SimulatedCell.start`."""
        super().start(where)
        fresh = [None if w else c for w, c in zip(where, self._cells, strict=False)]
        fresh += [None] * (self.batch - len(fresh))
        self._cells = [c or Cell(self, k) for k, c in enumerate(fresh)]

    def count(self, row: int, column: int, delay: float) -> None:
        """Enter a delivered packet into the histogram."""
        if self.histogram is not None:
            k = int((math.log2(delay) + 2) * fluid.GRID)
            self.histogram[row, column, min(max(k, 0), fluid.CELLS - 1)] += 1

    def play(self, blocks: np.ndarray, period: np.ndarray) -> Played:
        """See `SimulatedCell.play`."""
        out = Played.empty(self.n, self.u, self.batch)
        for k, cell in enumerate(self._cells):
            cell.advance([int(b) for b in blocks[:, k]], out)
        return out
