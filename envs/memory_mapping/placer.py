"""The placing rules for one program, in plain Python: what searches use, and what makes plans.

The environment decides where and when; whoever plays decides drop, stay or copy:

- *stay*: born in fast memory (first use) or still there from the use before, same granules;
- *copy*: fetched in the ops since the event before, as late as idle bandwidth hides it; what cannot
  be hidden is charged to the op before the use;
- *drop*: read from slow memory. A tensor that was born in fast memory is then written back during
  its stay, in idle bandwidth first.

Offsets are first fit, over the rest of the tensor's life where that is free. `board` plays the same
rules for a batch; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY, Plan, Residence
from allocgym.envs.memory_mapping.program import PAGES, Device, Program

FULL = (1 << PAGES) - 1


def runs(free: int, size: int) -> int:
    """Bits at which ``size`` free granules in a row begin."""
    have = 1
    while have < size and free:
        step = min(have, size - have)
        free &= free >> step
        have += step
    return free


class Placer:
    """The state of one game.

    Args:
        program: what is mapped.
        device: what it runs on.
    """

    def __init__(self, program: Program, device: Device) -> None:
        self.program, self.device = program, device
        self.comp: list[float] = program.compute(device).tolist()
        self.pages = [device.pages(x.size) for x in program.tensors]
        self.base: list[int] = program.traffic.tolist()
        self.tolerance = 1e-12 * program.all_slow(device)
        self.restart()

    def restart(self) -> None:
        """Everything in slow memory again."""
        n = len(self.program.ops)
        self.slow = list(self.base)
        self.fast = [0] * n
        self.copy = [0] * n
        self.taken = [0] * n
        self.stay: dict[int, Residence] = {}
        self.owed: set[int] = set()
        self.plan = Plan()
        self.seconds = sum(
            max(c, b / self.device.slow) for c, b in zip(self.comp, self.base, strict=True)
        )

    def _time(self, t: int, slow: int, fast: int) -> float:
        d = self.device
        return max(self.comp[t], slow / d.slow + fast / d.fast)

    def _idle(self, t: int) -> int:
        d = self.device
        room = math.floor((self.comp[t] - self.fast[t] / d.fast) * d.slow)
        return max(room - self.slow[t] - self.copy[t], 0)

    def _spread(self, first: int, last: int, size: int) -> dict[int, int]:
        """Lay ``size`` bytes into idle bandwidth from the last op backwards; the rest on the last."""
        parts: dict[int, int] = {}
        left = size
        for t in range(last, first - 1, -1):
            take = min(self._idle(t), left)
            if take:
                parts[t] = take
                left -= take
                if not left:
                    break
        if left:
            parts[last] = parts.get(last, 0) + left
        return parts

    def _fit(self, first: int, use: int, last: int, size: int) -> int:
        """First offset that is free until the tensor's last use; else, until this use."""
        if size > PAGES:
            return -1
        used = 0
        for t in range(first, use + 1):
            used |= self.taken[t]
        starts = runs(~used & FULL, size)
        if starts and last > use:
            for t in range(use + 1, last + 1):
                used |= self.taken[t]
            starts = runs(~used & FULL, size) or starts
        return (starts & -starts).bit_length() - 1

    def option(self, segment: int, action: int) -> Option | None:
        """What an action would do, or None where it is not legal."""
        s = self.program.segments[segment]
        x = self.program.tensors[s.tensor]
        here = self.stay.get(s.tensor)
        if here is not None and here.end != s.since:
            here = None
        found = Option(action)
        out: dict[int, int] | None = None
        if s.tensor in self.owed and action != STAY:
            out = self._spread(x.born + 1, s.since, x.size)
        if action == STAY:
            if s.first and s.since >= 0:
                found.offset, found.start = (
                    self._fit(s.since, s.use, x.uses[-1], self.pages[s.tensor]),
                    s.since,
                )
                if found.offset < 0:
                    return None
                found.born = True
                if x.output:
                    out = self._spread(s.since + 1, s.use, x.size)
            elif here is not None:
                mask = ((1 << self.pages[s.tensor]) - 1) << here.offset
                if any(self.taken[t] & mask for t in range(s.since + 1, s.use + 1)):
                    return None
                found.offset, found.start = here.offset, s.since + 1
            else:
                return None
        elif action == COPY:
            if s.use - s.since < 2:
                return None
            found.fetch = self._spread(s.since + 1, s.use - 1, x.size)
            found.start = min(found.fetch)
            found.offset = self._fit(found.start, s.use, x.uses[-1], self.pages[s.tensor])
            if found.offset < 0:
                return None
        found.evict = out
        found.gain = self._gain(
            s.use if action else -1, s.since if found.born else -1, x.size, found
        )
        return found

    def _gain(self, use: int, born: int, size: int, o: Option) -> float:
        moved = {t: 0 for t in (use, born) if t >= 0}
        extra: dict[int, int] = {}
        for parts in (o.fetch, o.evict):
            for t, b in (parts or {}).items():
                extra[t] = extra.get(t, 0) + b
        gain = 0.0
        for t in moved.keys() | extra.keys():
            shift = size if t in moved else 0
            bus = self.slow[t] + self.copy[t]
            before = self._time(t, bus, self.fast[t])
            after = self._time(t, bus - shift + extra.get(t, 0), self.fast[t] + shift)
            gain += before - after
        return gain

    def apply(self, segment: int, o: Option) -> None:
        """Play an option."""
        s = self.program.segments[segment]
        x = self.program.tensors[s.tensor]
        for parts in (o.fetch, o.evict):
            for t, b in (parts or {}).items():
                self.copy[t] += b
        if o.evict is not None:
            self.plan.evictions[s.tensor] = o.evict
            self.owed.discard(s.tensor)
        for t in ([s.use] if o.action else []) + ([s.since] if o.born else []):
            self.slow[t] -= x.size
            self.fast[t] += x.size
        self.seconds -= o.gain
        if o.action == DROP:
            self.stay.pop(s.tensor, None)
            return
        mask = ((1 << self.pages[s.tensor]) - 1) << o.offset
        for t in range(o.start, s.use + 1):
            self.taken[t] |= mask
        if o.action == STAY and not o.born:
            here = self.stay[s.tensor]
            here.end = s.use
            here.uses.append(s.use)
            return
        here = Residence(
            s.tensor, o.start, s.use, o.offset, [s.use], None if o.born else dict(o.fetch or {})
        )
        self.stay[s.tensor] = here
        self.plan.residences.append(here)
        if o.born and not x.output:
            self.owed.add(s.tensor)

    def play(self, segment: int, action: int) -> bool:
        """Play an action, or drop where it is not legal; return whether it was legal."""
        o = self.option(segment, action)
        legal = o is not None
        self.apply(segment, o or self.option(segment, DROP) or Option(DROP))
        return legal

    def potential(self, segment: int) -> float:
        """Seconds the use alone would save, were the operand in fast memory."""
        s = self.program.segments[segment]
        z = self.program.tensors[s.tensor].size
        bus = self.slow[s.use] + self.copy[s.use]
        return self._time(s.use, bus, self.fast[s.use]) - self._time(
            s.use, bus - z, self.fast[s.use] + z
        )

    def best(self, segment: int, following: int | None) -> Option:
        """The greedy choice: the most time saved, the next use's potential counted in."""
        drop = self.option(segment, DROP) or Option(DROP)
        chosen, score = drop, drop.gain + self.tolerance
        ahead = self.potential(following) if following is not None else 0.0
        for action in (STAY, COPY):
            o = self.option(segment, action)
            if o is not None and o.gain + ahead > score:
                chosen, score = o, o.gain + ahead
        return chosen

    def place(self, tensor: int) -> None:
        """Place all segments of one tensor greedily (a step of the order game)."""
        mine = self.program.of_tensor[tensor]
        for n, segment in enumerate(mine):
            following = mine[n + 1] if n + 1 < len(mine) else None
            self.apply(segment, self.best(segment, following))

    def order(self, tensors: Iterable[int]) -> float:
        """Place tensors in an order from scratch; return the fraction of the all-slow time saved."""
        self.restart()
        for x in tensors:
            self.place(int(x))
        return self.saved

    @property
    def saved(self) -> float:
        """Fraction of the all-slow time saved so far."""
        return 1 - self.seconds / self.program.all_slow(self.device)

    def op_seconds(self) -> np.ndarray:
        """Seconds of each op now."""
        return np.array(
            [
                self._time(t, self.slow[t] + self.copy[t], self.fast[t])
                for t in range(len(self.comp))
            ]
        )


class Option:
    """What an action would do: granules, start, copies, seconds gained."""

    __slots__ = ("action", "born", "evict", "fetch", "gain", "offset", "start")

    def __init__(self, action: int) -> None:
        self.action = action
        self.offset = self.start = -1
        self.born = False
        self.fetch: dict[int, int] | None = None
        self.evict: dict[int, int] | None = None
        self.gain = 0.0
