"""The SimPy reference: single packets, a scheduler at every busy TTI, the control loop a process.

Slower than the fluid twin and closer to a base station: packets wait in a FIFO per user, blocks
are handed out at TTI boundaries (whole ones, where asked for), a scheduler picks users,
transmissions may fail. A period is a SimPy environment of its own, begun from the state and put
away into it: nothing of an episode lives in generators.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Generator

import numpy as np
import simpy

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Shares
from allocgym.simulators.prb_slicing import fluid
from allocgym.simulators.prb_slicing.cell import SimulatedCell
from allocgym.simulators.prb_slicing.episodes import Episodes, Packets
from allocgym.simulators.prb_slicing.scheduling import (
    proportional_fair,
    round_robin,
    softmax,
    water,
    whole_water,
)
from allocgym.simulators.prb_slicing.state import CellState, Histogram, Played

TTI = 1.0
WINDOW = 50.0
"""TTIs over which proportional fair remembers a user's rate."""
ASLEEP = -1.0


@dataclasses.dataclass(eq=False)
class PacketState(CellState):
    """See `CellState`; and the queues.

    Attributes:
        queues: ``(n, u, batch)`` of each user, a tuple of packets (bytes left, ms of arrival, whether it
            ends a recorded packet).
        waiting: ``(n, u, batch)`` bytes in them.
        held: ``(n, batch)`` bytes in a slice's queues.
        unsettled: ``(n, u, batch)`` bytes sent that ``average`` does not know of yet.
        turn: ``(batch,)`` int64 TTIs scheduled so far.
        due: ``(batch,)`` ms of the next TTI to be scheduled, `ASLEEP` while nothing waits.
        failures: ``(batch,)`` streams of failed transmissions.
    """

    queues: np.ndarray
    waiting: np.ndarray
    held: np.ndarray
    unsettled: np.ndarray
    turn: np.ndarray
    due: np.ndarray
    failures: np.ndarray

    def unshared(self) -> PacketState:
        """A copy of what a period changes, to be changed in place."""
        names = ("queues", "waiting", "held", "unsettled", "turn", "due", "average")
        fresh = {name: getattr(self, name).copy() for name in names}
        kept = None if self.histogram is None else Histogram(self.histogram.counts.copy())
        return dataclasses.replace(self, **fresh, histogram=kept)


class User:
    """A user's queue: packets as ``[bytes left, time of arrival, ends a recorded packet]``."""

    __slots__ = ("average", "carries", "row", "served", "sizes", "user", "waiting")

    def __init__(self, state: PacketState, place: tuple[int, int, int], carries: float) -> None:
        self.row, self.user, _ = place
        self.sizes: deque[list[float]] = deque(map(list, state.queues[place]))
        self.waiting = float(state.waiting[place])
        self.average = float(state.average[place])
        self.served = float(state.unsettled[place])
        self.carries = carries

    def put_away(self, state: PacketState, column: int) -> None:
        """Write the queue back."""
        place = (self.row, self.user, column)
        state.queues[place] = tuple(map(tuple, self.sizes))
        state.waiting[place], state.average[place] = self.waiting, self.average
        state.unsettled[place] = self.served


class Cell:
    """One cell for one period: a SimPy environment with traffic and a base station.

    Args:
        episodes: what the cell plays.
        state: of the batch; the cell's own column is changed by `play`.
        column: which cell of the batch.
        carries: ``(n, u)`` bytes a block carries in a millisecond for each of its users.
        out: filled with what the period brings.
    """

    def __init__(
        self, episodes: Episodes, state: PacketState, column: int, carries: np.ndarray, out: Played
    ) -> None:
        s = self.scenario = episodes.scenario
        self.state, self.column, self.out = state, column, out
        n = len(s.slices)
        self.users = [
            [User(state, (i, u, column), float(carries[i, u])) for u in range(int(count))]
            for i, count in enumerate(state.workload.users[:n, column])
        ]
        self.done = [0] * n
        self.targets = [s.target(i) for i in range(n)]
        self.schedulers = [s.scheduler(i) for i in range(n)]
        self.backlogged = state.held[:n, column].tolist()
        self.turn, self.due = int(state.turn[column]), float(state.due[column])
        self.failures = state.failures[column : column + 1]
        self.whole = s.whole_blocks
        period = int(state.period[column])
        self.begin = period * s.period
        self.packets = episodes.packets(state.workload, column, period)
        self.wake: simpy.Event | None = None

    def play(self, blocks: list[int]) -> None:
        """Play the period with the given blocks, and write queues and counts back."""
        self.blocks, end = blocks, self.begin + self.scenario.period
        self.env = simpy.Environment(self.begin)
        # What is due at the period's first instant is scheduled after the packets of that instant.
        self.env.process(self._station())
        self.env.process(self._traffic(self.packets, math.nextafter(end, 0.0)))
        self.env.run(until=end)
        state, column = self.state, self.column
        state.held[: len(self.users), column] = self.backlogged
        state.turn[column], state.due[column] = self.turn, self.due
        for i, users in enumerate(self.users):
            self.out.delay[i, column] /= max(self.done[i], 1)
            for u, user in enumerate(users):
                user.put_away(state, column)
                self.out.backlog[i, u, column] = user.waiting

    def _traffic(self, packets: Packets, latest: float) -> Generator[simpy.Event]:
        """Packets of a period, one event per distinct time."""
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
            at = min(self.begin + time, latest)
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
            if self.wake is not None and not self.wake.triggered:
                self.wake.succeed()

    def _station(self) -> Generator[simpy.Event]:
        """Schedule at every TTI boundary while somebody waits; sleep otherwise."""
        env = self.env
        while True:
            if self.due == ASLEEP:
                self.wake = env.event()
                yield self.wake
                # What arrives within a TTI is scheduled at the next boundary.
                delay = math.floor(env.now / TTI + 1e-9) * TTI + TTI - env.now
                self.due = env.now + delay
            else:
                delay = self.due - env.now
            yield env.timeout(delay)
            if max(self.backlogged) > 0:
                self._schedule(env.now)
                self.due = env.now + TTI
            else:
                self.due = ASLEEP

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
                self._count(i, delay)
            sizes.popleft()
        if user.waiting < 1e-6:
            self.backlogged[i] -= user.waiting
            user.waiting = 0.0
            sizes.clear()
        if self.backlogged[i] < 1e-6:
            self.backlogged[i] = 0.0

    def _count(self, row: int, delay: float) -> None:
        """Enter a delivered packet into the histogram."""
        if self.state.histogram is not None:
            k = int((math.log2(delay) + 2) * fluid.GRID)
            self.state.histogram.counts[self.column, row, min(max(k, 0), fluid.CELLS - 1)] += 1


class PacketCell(SimulatedCell[PacketState]):
    """The reference: event by event, one cell of the batch after another."""

    def _fresh(self, seeds: np.ndarray) -> PacketState:
        begun = self.begun(seeds)
        shape = (self.n, self.u, len(seeds))
        queues = np.empty(shape, object)
        queues.fill(())
        return PacketState(
            **{f.name: getattr(begun, f.name) for f in dataclasses.fields(begun)},
            queues=queues,
            waiting=np.zeros(shape),
            held=np.zeros((self.n, len(seeds))),
            unsettled=np.zeros(shape),
            turn=np.zeros(len(seeds), np.int64),
            due=np.full(len(seeds), ASLEEP),
            failures=randomness.stream(seeds, "HARQ")[0],
        )

    def _step(self, state: PacketState, decision: Shares) -> PacketState:
        units = np.asarray(decision.units)
        out = Played.empty(self.n, self.u, self.batch)
        after, carries = state.unshared(), self.episodes.carries(state.workload)
        for column, blocks in enumerate(self.blocks(units).T.astype(int).tolist()):
            Cell(self.episodes, after, column, carries[:, :, column], out).play(blocks)
        return self.ended(after, np.array(units.T), out)
