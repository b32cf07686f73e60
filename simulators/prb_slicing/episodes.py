"""What an episode is made of: users, their traces and offsets, their channels.

Everything is a keyed draw, so that twin, SimPy and the live data plane play the same episode.
Arrays are claimant-first: ``(n, u, batch)``.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.record import Columns
from allocgym.envs.prb_slicing.records import KINDS, SlicingInstance
from allocgym.envs.prb_slicing.scenario import SlicingScenario
from allocgym.simulators.prb_slicing import tables, traffic

CONTROL_RATES = (0.1, 0.8, 2.0)
"""Mbit/s of a user of each kind in the control."""
FINE_TARGET = 50.0
"""Slices with a delay target up to this many ms are simulated at 1 ms, others at 10 ms."""
FINE_MS, COARSE_MS = 1.0, 10.0


@dataclasses.dataclass
class Packets:
    """Packets of one period of one cell, in order of time.

    Attributes:
        time: ms within the period.
        size: bytes of IP packet.
        row: slice.
        user: user within the slice.
        last: the packet ends a recorded packet (load splits large ones).
    """

    time: np.ndarray
    size: np.ndarray
    row: np.ndarray
    user: np.ndarray
    last: np.ndarray


@dataclasses.dataclass(eq=False)
class Workload(Columns):
    """Users, traffic and channels of a batch of episodes.

    Attributes:
        seeds: ``(batch,)``.
        users: ``(n, batch)`` int64 users of each slice.
        active: ``(n, u, batch)`` bool, rows that are users.
        load: ``(batch,)`` factor on packets' sizes.
        first, length, offset: ``(n, u, batch)`` int64: row of the library at which the trace each user
            replays begins, rows it has, and the row in it that is played first.
        mean: ``(n, u, batch)`` mean channel quality, ``(n, 1, batch)`` where slices share one; so
            the next two.
        noise: streams of the channels' innovations.
        x: the channels now, standard normal around their means.
        cqi: ``(n, u, batch)`` int64 channel quality now, 1 to 15.
    """

    seeds: np.ndarray
    users: np.ndarray
    active: np.ndarray
    load: np.ndarray
    first: np.ndarray
    length: np.ndarray
    offset: np.ndarray
    mean: np.ndarray
    noise: np.ndarray
    x: np.ndarray
    cqi: np.ndarray


class Episodes:
    """Draws workloads, and says what they bring in a period.

    Args:
        scenario: what to draw from.
        n_max: rows for slices, at least as many as the scenario has.
    """

    def __init__(self, scenario: SlicingScenario, n_max: int) -> None:
        self.scenario, self.n, self.u = scenario, n_max, scenario.users
        self.fine = [scenario.target(i) <= FINE_TARGET for i in range(len(scenario.slices))]
        self.fit = json.loads((traffic.FITS / "channel.json").read_text())
        self.table = np.concatenate([[0.0], scenario.carrier.bytes_per_block(np.arange(1, 16))])
        if scenario.rate == "tbs":
            self.table = tables.bytes_per_block(scenario.carrier.blocks)

    def fresh(self, seeds: np.ndarray) -> Workload:
        """Draw an episode for each seed, at its beginning."""
        s, n, u, batch = self.scenario, self.n, self.u, len(seeds)

        def draw(purpose: str, count: int = 1) -> np.ndarray:
            return randomness.uniform(randomness.stream(seeds, purpose, count), 0)

        mixes = np.zeros((len(s.drawn), n), np.int64)
        for k, mix in enumerate(s.drawn):
            mixes[k, : len(s.slices)] = s.counts(mix)
        users = mixes[np.minimum((draw("mix")[0] * len(mixes)).astype(np.int64), len(mixes) - 1)].T
        low, high = np.log(s.load)
        which, place = (draw(p, n * u).reshape(n, u, -1) for p in ("trace", "trace offset"))
        first, offset = np.zeros((2, n, u, batch), np.int64)
        length = np.ones((n, u, batch), np.int64)
        for i in range(0 if s.control else len(s.slices)):
            lib = self.library(i)
            k = np.minimum((which[i] * lib.rows.size).astype(np.int64), lib.rows.size - 1)
            first[i], length[i] = lib.first[k], lib.rows[k]
            offset[i] = (place[i] * lib.rows[k]).astype(np.int64)
        channels = u if s.channel == "user" else 1
        normal = randomness.normal(randomness.stream(seeds, "mean CQI", n * channels), 0)
        noise = randomness.stream(seeds, "CQI", n * channels).reshape(n, channels, batch)
        mean = self.fit["mean"] + self.fit["mean_sd"] * normal.reshape(noise.shape)
        x = randomness.normal(noise, np.zeros(batch, np.int64))
        return Workload(
            seeds=np.asarray(seeds),
            users=np.ascontiguousarray(users),
            active=np.arange(u)[None, :, None] < users[:, None, :],
            load=np.exp(low + (high - low) * draw("load")[0]),
            first=first,
            length=length,
            offset=offset,
            mean=mean,
            noise=noise,
            x=x,
            cqi=self._quality(mean, x),
        )

    def library(self, row: int) -> traffic.Library:
        """The traces of slice ``row``, cut into this scenario's periods."""
        s = self.scenario
        width = FINE_MS if self.fine[row] else COARSE_MS
        return traffic.library(s.source, s.split, s.slices[row], s.period, round(s.period / width))

    def _quality(self, mean: np.ndarray, x: np.ndarray) -> np.ndarray:
        shape = (self.n, self.u, x.shape[-1])
        if self.scenario.control:
            return np.full(shape, 9, np.int64)
        cqi = np.clip(np.rint(mean + self.fit["sd"] * x), 1, 15).astype(np.int64)
        return np.broadcast_to(cqi, shape)

    def moved(self, w: Workload, period: np.ndarray) -> Workload:
        """The same with every channel in period ``period``: AR(1) around its own mean, rounded."""
        kept = self.fit["rho_250ms"] ** (self.scenario.period / 250.0)
        x = kept * w.x + np.sqrt(1 - kept**2) * randomness.normal(w.noise, period)
        return dataclasses.replace(w, x=x, cqi=self._quality(w.mean, x))

    def carries(self, w: Workload) -> np.ndarray:
        """Bytes a block carries in a millisecond for each user, ``(n, u, batch)``."""
        return self.table[w.cqi] * (1 - self.scenario.harq)

    def rows(self, w: Workload, row: int, period: np.ndarray | int) -> np.ndarray:
        """Rows of the library that slice ``row``'s users replay in a period, ``(u, batch)``."""
        return w.first[row] + (w.offset[row] + period) % w.length[row]

    def arrivals(
        self, w: Workload, row: int, period: np.ndarray, scale: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bytes (times ``scale (u, batch)``) and packets of slice ``row``, ``(u, batch, bins)``.

        ``scale`` may cover fewer users than there are rows: those beyond are left out.
        """
        s = self.scenario
        factor = np.broadcast_to(w.load, (self.u, len(w.load)))
        active = w.active[row]
        if scale is not None:
            active = active[: len(scale)]
            factor = factor[: len(scale)] * scale
        if s.control:
            bins = round(s.period / (FINE_MS if self.fine[row] else COARSE_MS))
            rate = CONTROL_RATES[KINDS.index(s.slices[row])] * 125 * s.period / bins
            ones = np.broadcast_to(active[:, :, None], (*active.shape, bins))
            number = ones.astype(np.float32)
            return number * (factor * rate)[:, :, None], number
        lib = self.library(row)
        replayed = self.rows(w, row, period)[: len(active)]
        index = np.where(active, replayed, len(lib.volume) - 1)
        volume = lib.volume[index]
        dtype = np.float32 if scale is not None and scale.dtype == np.float32 else np.float64
        return volume * factor.astype(dtype)[:, :, None], lib.count[index]

    def packets(self, w: Workload, column: int, period: int) -> Packets:
        """Packets of cell ``column`` in a period, large ones cut to what a frame holds."""
        parts: list[tuple[np.ndarray, ...]] = []
        for i, kind in enumerate(self.scenario.slices):
            for u in range(int(w.users[i, column])):
                if self.scenario.control:
                    width = FINE_MS if self.fine[i] else COARSE_MS
                    time = np.arange(0.0, self.scenario.period, width) + 0.5 * width
                    rate = CONTROL_RATES[KINDS.index(kind)] * 125 * width
                    size = np.full(time.size, rate)
                else:
                    lib = self.library(i)
                    r = self.rows(w, i, period)[u, column]
                    begin, end = lib.index[r], lib.index[r + 1]
                    time, size = lib.times[begin:end], lib.sizes[begin:end]
                size = np.maximum(np.rint(size * w.load[column]), 1).astype(np.int64)
                pieces = -(-size // traffic.LARGEST)
                piece = np.repeat(size // pieces, pieces)
                last = np.zeros(piece.size, bool)
                ends = np.cumsum(pieces) - 1
                last[ends] = True
                piece[ends] += size % pieces
                parts.append(
                    (
                        np.repeat(time, pieces),
                        piece,
                        np.full(piece.size, i),
                        np.full(piece.size, u),
                        last,
                    )
                )
        if not parts:
            empty = np.zeros(0, np.int64)
            return Packets(np.zeros(0), empty, empty, empty, np.zeros(0, bool))
        columns = [np.concatenate(c) for c in zip(*parts, strict=True)]
        order = np.argsort(columns[0], kind="stable")
        return Packets(*[c[order] for c in columns])

    def instance(self, w: Workload) -> SlicingInstance:
        """What agents know of the episodes."""
        s, batch = self.scenario, len(w.seeds)
        k = len(s.slices)
        present = np.arange(self.n) < k
        kind = np.zeros(self.n, np.int64)
        kind[:k] = [KINDS.index(name) for name in s.slices]
        target = np.full(self.n, 300.0)
        target[:k] = [s.target(i) for i in range(k)]

        def row(values: np.ndarray) -> np.ndarray:
            return np.tile(values, (batch, 1))

        return SlicingInstance(
            present=row(present),
            kind=row(kind),
            users=w.users.T.copy(),
            active=w.active.transpose(2, 0, 1).copy(),
            target=row(target),
            budget=np.full(batch, s.carrier.groups),
            blocks=np.full(batch, float(s.carrier.blocks)),
            horizon=np.full(batch, s.horizon),
            period=np.full(batch, s.period),
        )
