"""What an episode is made of: users, their traces and offsets, their channels.

Everything is a keyed draw, so that twin, SimPy and the live data plane play the same episode.
Arrays are claimant-first: ``(n, u, batch)``.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.records import KINDS, SlicingInstance
from allocgym.simulators.prb_slicing import tables, traffic
from allocgym.simulators.prb_slicing.scenarios import FINE_TARGET, Scenario

CONTROL_RATES = (0.1, 0.8, 2.0)
"""Mbit/s of a user of each kind in the control."""
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


class Workload:
    """Users, traffic and channels of a batch of seeds.

    Args:
        scenario: what to draw from.
        seeds: ``(batch,)``.
        n_max: rows for slices.
    """

    def __init__(self, scenario: Scenario, seeds: np.ndarray, n_max: int) -> None:
        if len(scenario.slices) > n_max:
            raise AllocgymError(f"n_max: {len(scenario.slices)} slices, given {n_max} rows")
        self.scenario, self.seeds = scenario, np.asarray(seeds)
        self.n, self.u, self.batch = n_max, scenario.users, len(seeds)
        self.fine = [scenario.target(i) <= FINE_TARGET for i in range(len(scenario.slices))]
        fit = json.loads((traffic.FITS / "channel.json").read_text())
        self.channel_fit = fit
        self.table = np.concatenate([[0.0], scenario.carrier.bytes_per_block(np.arange(1, 16))])
        if scenario.rate == "tbs":
            self.table = tables.bytes_per_block(scenario.carrier.blocks)
        self.begin(self.seeds, np.ones(self.batch, bool))

    def _draw(self, purpose: str, count: int = 1) -> np.ndarray:
        return randomness.uniform(randomness.stream(self.seeds, purpose, count), 0)

    def begin(self, seeds: np.ndarray, where: np.ndarray) -> None:
        """Draw new episodes where asked; each is a function of its seed alone."""
        self.seeds = np.where(where, seeds, self.seeds)
        s, n, u = self.scenario, self.n, self.u
        mixes = np.zeros((len(s.mixes), n), np.int64)
        for k, mix in enumerate(s.mixes):
            mixes[k, : len(s.slices)] = s.counts(mix)
        chosen = np.minimum((self._draw("mix")[0] * len(mixes)).astype(np.int64), len(mixes) - 1)
        self.mix = chosen
        self.users = mixes[chosen].T
        self.active = np.arange(u)[None, :, None] < self.users[:, None, :]
        low, high = np.log(s.load)
        self.load = np.exp(low + (high - low) * self._draw("load")[0])
        which, offset = (self._draw(p, n * u).reshape(n, u, -1) for p in ("trace", "trace offset"))
        self._trace = np.zeros((n, u, self.batch), np.int64)
        self._first = np.zeros_like(self._trace)
        self._length = np.ones_like(self._trace)
        if not s.control:
            for i, _ in enumerate(s.slices):
                lib = self.library(i)
                k = np.minimum((which[i] * lib.rows.size).astype(np.int64), lib.rows.size - 1)
                self._first[i], self._length[i] = lib.first[k], lib.rows[k]
                self._trace[i] = (offset[i] * lib.rows[k]).astype(np.int64)
        users = n * u if s.channel == "user" else n
        shape = (n, users // n, self.batch)
        fit = self.channel_fit
        self._mean = randomness.normal(randomness.stream(self.seeds, "mean CQI", users), 0).reshape(
            shape
        )
        self._mean = fit["mean"] + fit["mean_sd"] * self._mean
        self._noise = randomness.stream(self.seeds, "CQI", users)
        self._shape = shape
        first = self.innovation(np.zeros(self.batch, np.int64))
        self._x = np.where(where, first, getattr(self, "_x", first))
        self.cqi = self._quality()

    def library(self, row: int) -> traffic.Library:
        """The traces of slice ``row``, cut into this scenario's periods."""
        s = self.scenario
        width = FINE_MS if self.fine[row] else COARSE_MS
        return traffic.library(s.source, s.split, s.slices[row], s.period, round(s.period / width))

    def innovation(self, index: np.ndarray) -> np.ndarray:
        """Standard normal draw of each channel for a period, ``(n, u or 1, batch)``."""
        return randomness.normal(self._noise, index[None]).reshape(self._shape)

    def _quality(self) -> np.ndarray:
        if self.scenario.control:
            return np.full((self.n, self.u, self.batch), 9, np.int64)
        x = self._mean + self.channel_fit["sd"] * self._x
        cqi = np.clip(np.rint(x), 1, 15).astype(np.int64)
        return np.broadcast_to(cqi, (self.n, self.u, self.batch))

    def next_channel(self, period: np.ndarray) -> None:
        """Move every channel to period ``period``: AR(1) around its own mean, rounded."""
        per_step = self.channel_fit["rho_250ms"] ** (self.scenario.period / 250.0)
        noise = self.innovation(period)
        self._x = per_step * self._x + np.sqrt(1 - per_step**2) * noise
        self.cqi = self._quality()

    def carries(self) -> np.ndarray:
        """Bytes a block carries in a millisecond for each user, ``(n, u, batch)``."""
        return self.table[self.cqi] * (1 - self.scenario.harq)

    def rows(self, row: int, period: np.ndarray) -> np.ndarray:
        """Rows of the library that slice ``row``'s users replay in a period, ``(u, batch)``."""
        return self._first[row] + (self._trace[row] + period) % self._length[row]

    def arrivals(
        self, row: int, period: np.ndarray, scale: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bytes (times ``scale (u, batch)``) and packets of slice ``row``, ``(u, batch, bins)``.

        ``scale`` may cover fewer users than there are rows: those beyond are left out.
        """
        s = self.scenario
        factor = np.broadcast_to(self.load, (self.u, self.batch))
        active = self.active[row]
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
        replayed = self.rows(row, period)[: len(active)]
        index = np.where(active, replayed, len(lib.volume) - 1)
        volume = lib.volume[index]
        dtype = np.float32 if scale is not None and scale.dtype == np.float32 else np.float64
        return volume * factor.astype(dtype)[:, :, None], lib.count[index]

    def packets(self, column: int, period: int) -> Packets:
        """Packets of cell ``column`` in a period, large ones cut to what a frame holds."""
        parts: list[tuple[np.ndarray, ...]] = []
        when = np.full(self.batch, period)
        for i, kind in enumerate(self.scenario.slices):
            for u in range(int(self.users[i, column])):
                if self.scenario.control:
                    width = FINE_MS if self.fine[i] else COARSE_MS
                    time = np.arange(0.0, self.scenario.period, width) + 0.5 * width
                    rate = CONTROL_RATES[KINDS.index(kind)] * 125 * width
                    size = np.full(time.size, rate)
                else:
                    lib = self.library(i)
                    r = self.rows(i, when)[u, column]
                    begin, end = lib.index[r], lib.index[r + 1]
                    time, size = lib.times[begin:end], lib.sizes[begin:end]
                size = np.maximum(np.rint(size * self.load[column]), 1).astype(np.int64)
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

    def instance(self) -> SlicingInstance:
        """What agents know of the episodes."""
        s, batch = self.scenario, self.batch
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
            users=self.users.T.copy(),
            active=self.active.transpose(2, 0, 1).copy(),
            target=row(target),
            budget=np.full(batch, s.carrier.groups),
            blocks=np.full(batch, float(s.carrier.blocks)),
            horizon=np.full(batch, s.horizon),
            period=np.full(batch, s.period),
        )
