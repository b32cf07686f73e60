"""Packet traces: recorded, generated from fits to the recorded ones, or 3GPP's models.

Whatever its origin, traffic is a `Trace`: packets with a time and a size. A user of an episode
replays one trace of its slice's kind from an offset; both are keyed draws.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import CorruptFileError, unknown
from allocgym.envs.prb_slicing.records import KINDS
from allocgym.envs.prb_slicing.scenario import SOURCES, SPLITS
from allocgym.simulators.core import public_data

FITS = Path(__file__).parent / "fits"
DOWNLINK = "172.30.1.250"
FRAMING = 70
"""Bytes of capture framing in a recorded length; the rest is a datagram's payload."""
HEADERS = 28
"""IP and UDP headers of the replayed datagram: what waits in the queue is the IP packet."""
SMALLEST, LARGEST = 60, 1400
"""Bytes of an IP packet; longer captures (merged by the receiver) are several packets."""
LONGEST = 366 * 86_400.0
"""Seconds of a capture."""
BLOCK_MS = 50_000.0
"""URLLC has few files: train and test alternate in blocks of this length."""

FILES: dict[str, dict[str, tuple[str, ...]]] = {
    "mmtc": {"train": ("mmtc", "mmtc_04_10", "mmtc_05_18"), "test": ("mmtc_03_03", "mmtc_11_18")},
    "urllc": {"train": ("urllc_04_10", "urllc_05_18"), "test": ("urllc_04_10", "urllc_05_18")},
    "embb": {"train": ("embb", "embb_04_10", "embb_05_18_a"), "test": ("embb_11_18",)},
}
ASIDE = {"urllc": ("urll_2",), "embb": ("embb_05_18_b",)}
"""Files of one class that only ``"all"`` uses: a sparse one and an upload."""


@dataclasses.dataclass(frozen=True)
class Trace:
    """Downlink packets of one user.

    Attributes:
        name: where it is from.
        times: ``(packets,)`` ms, ascending, in [0, duration).
        sizes: ``(packets,)`` int64 bytes of the IP packet.
        duration: ms.
    """

    name: str
    times: np.ndarray
    sizes: np.ndarray
    duration: float

    def bins(self, width: float) -> np.ndarray:
        """Bytes in consecutive bins of ``width`` ms; an incomplete last one is dropped."""
        count = int(self.duration // width)
        index = (self.times / width).astype(np.int64)
        return np.bincount(index, self.sizes, minlength=count + 1)[:count]

    def cut(self, begin: float, end: float, name: str) -> Trace:
        """The packets of ``[begin, end)``."""
        inside = (self.times >= begin) & (self.times < end)
        return Trace(name, self.times[inside] - begin, self.sizes[inside], end - begin)


def read(name: str) -> Trace:
    """Read the downlink of a recorded TRACTOR trace.

    Raises:
        DataMissingError: the public data is not on this machine.
    """
    return parse(public_data.path(f"prb/tractor/raw/{name}.csv.gz"), name)


def parse(file: Path, name: str) -> Trace:
    """Read the downlink of a capture: a table of ``Time`` (s), ``Source`` and ``Length`` (bytes).

    Raises:
        CorruptFileError: it is none: damaged, empty, or numbers that no capture has.
    """
    import pandas as pd

    columns = ["Time", "Source", "Length"]
    kinds = {"Time": float, "Source": str, "Length": float}
    try:
        frame = pd.read_csv(file, usecols=columns, dtype=kinds)
        time, length = frame["Time"].to_numpy(), frame["Length"].to_numpy()
        if not len(frame) or not np.isfinite(time).all() or (np.diff(time) < 0).any():
            raise ValueError("times that ascend expected")
        whole = np.isfinite(length).all() and (length == np.floor(length)).all()
        if time[-1] - time[0] > LONGEST or not whole or length.min() < 0 or length.max() > 2**31:
            raise ValueError("a year at most, and whole lengths up to 2**31 expected")
    except (OSError, EOFError, ValueError, TypeError, OverflowError, zlib.error) as error:
        raise CorruptFileError(f"{file}: not a recorded trace ({error})") from error
    down = (frame["Source"] == DOWNLINK).to_numpy()
    times = (time[down] - time[0]) * 1000
    sizes = np.maximum(length[down].astype(np.int64) - FRAMING + HEADERS, SMALLEST)
    return Trace(name, times, sizes, float((time[-1] - time[0]) * 1000))


def blocks(trace: Trace, split: str) -> list[Trace]:
    """Even (train) or odd (test) blocks of a trace, each a trace of its own."""
    edges = np.arange(0.0, trace.duration, BLOCK_MS)
    out = []
    for k, begin in enumerate(edges):
        end = min(begin + BLOCK_MS, trace.duration)
        if k % 2 == (split == "test") and end - begin >= BLOCK_MS / 2:
            out.append(trace.cut(begin, end, f"{trace.name}[{k}]"))
    return out


@functools.cache
def recorded(split: str = "all") -> dict[str, list[Trace]]:
    """The recorded traces of a split, by kind."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    out: dict[str, list[Trace]] = {}
    for kind in KINDS:
        files = FILES[kind]
        if split == "all":
            names = (*dict.fromkeys(files["train"] + files["test"]), *ASIDE.get(kind, ()))
            out[kind] = [read(name) for name in names]
        elif kind == "urllc":
            out[kind] = [b for name in files[split] for b in blocks(read(name), split)]
        else:
            out[kind] = [read(name) for name in files[split]]
    return out


@functools.cache
def fits() -> dict[str, Any]:
    """The fitted parameters of traffic (see `calibration`)."""
    data: dict[str, Any] = json.loads((FITS / "traffic.json").read_text())
    return data


def generate(kind: str, seconds: float, seed: int) -> Trace:
    """A trace from the fitted generator of a kind.

    A Markov chain over levels of bytes per 250 ms (level 0 is silence) with fitted transitions;
    within a level the bytes are drawn from its fitted quantiles; a bin's packets come in bursts of
    a fitted mean size, with fitted packet sizes.
    """
    fit = fits()[kind]
    rng = randomness.generator(seed, f"traffic {kind}")
    moves = np.cumsum(np.array(fit["transitions"]), 1)
    levels = [np.array(q) for q in fit["levels"]]
    sizes = np.array(fit["packet_sizes"])
    gaps = np.array(fit["burst_packets"])
    grid = np.linspace(0, 1, sizes.size)
    state = int(np.searchsorted(np.cumsum(fit["stationary"]), rng.random()))
    times: list[np.ndarray] = []
    packets: list[np.ndarray] = []
    bins = int(seconds * 4)
    for k in range(bins):
        state = min(int(np.searchsorted(moves[state], rng.random())), len(levels) - 1)
        if state == 0:
            continue
        quantiles = levels[state]
        amount = np.interp(rng.random(), np.linspace(0, 1, quantiles.size), quantiles)
        count = max(round(amount / max(sizes.mean(), 1)), 1)
        drawn = np.interp(rng.random(count), grid, sizes)
        drawn = np.maximum(np.rint(drawn * amount / drawn.sum()), SMALLEST).astype(np.int64)
        burst = max(float(np.interp(rng.random(), np.linspace(0, 1, gaps.size), gaps)), 1.0)
        starts = np.sort(rng.random(max(round(count / burst), 1))) * 249.0
        which = np.sort(rng.integers(0, starts.size, count))
        times.append(k * 250.0 + starts[which])
        packets.append(drawn)
    if not times:
        return Trace(f"generated {kind} {seed}", np.zeros(0), np.zeros(0, np.int64), bins * 250.0)
    return Trace(
        f"generated {kind} {seed}", np.concatenate(times), np.concatenate(packets), bins * 250.0
    )


def standard(kind: str, seconds: float, seed: int) -> Trace:
    """3GPP's models: FTP model 3, periodic URLLC, mMTC bursts.

    eMBB: Poisson arrivals of 0.5 MB files (TR 36.814 A.2.1.3.1; one in 10 s, 0.4 Mbit/s). URLLC:
    200 bytes each 4 ms with a random phase. mMTC: 125 bytes, Poisson at 0.5 a second, plus a
    Beta(3, 4) burst of 60 packets over 10 s in each minute (TR 37.868 6.1.1, model 2).
    """
    rng = randomness.generator(seed, f"3gpp {kind}")
    length = seconds * 1000
    if kind == "embb":
        begins = np.sort(rng.random(rng.poisson(seconds / 10)) * length)
        offsets = np.arange(0, 500_000, LARGEST)
        # A file arrives over a fixed network at 100 Mbit/s.
        times = (begins[:, None] + offsets / 12_500.0).ravel()
        sizes = np.full(times.size, LARGEST, np.int64)
    elif kind == "urllc":
        times = np.arange(rng.random() * 4, length, 4.0)
        sizes = np.full(times.size, 200, np.int64)
    else:
        quiet = rng.random(rng.poisson(seconds / 2)) * length
        minutes = np.arange(0.0, length, 60_000.0)
        wave = (minutes[:, None] + rng.beta(3, 4, (minutes.size, 60)) * 10_000).ravel()
        times = np.concatenate([quiet, wave])
        sizes = np.full(times.size, 125, np.int64)
    order = np.argsort(times, kind="stable")
    inside = order[times[order] < length]
    return Trace(f"3gpp {kind} {seed}", times[inside], sizes[inside], length)


GENERATED_SECONDS = {"mmtc": 1200.0, "urllc": 240.0, "embb": 900.0}
GENERATED_COUNT = 6


@functools.cache
def traces(source: str, split: str = "all") -> dict[str, list[Trace]]:
    """Traces by kind: recorded ones, or six synthetic ones a kind (train and test differ).

    Raises:
        AllocgymError: no such source or split; for recorded ones, no public data here.
    """
    if source not in SOURCES:
        raise unknown("traffic", source, SOURCES)
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if source == "recorded":
        return recorded(split)
    make = generate if source == "generated" else standard
    first = 1000 * SPLITS.index(split)
    return {
        kind: [make(kind, GENERATED_SECONDS[kind], first + k) for k in range(GENERATED_COUNT)]
        for kind in KINDS
    }


@dataclasses.dataclass(frozen=True)
class Library:
    """Traces of one kind, cut into decision periods.

    Attributes:
        first: ``(traces,)`` row at which each trace begins.
        rows: ``(traces,)`` periods of each.
        volume: ``(all rows, bins)`` float32 bytes in each bin of a period.
        count: ``(all rows, bins)`` float32 packets in each bin. The last row of both is silence.
        times: packets' times within their period, ms.
        sizes: their bytes.
        index: ``(all rows + 1,)`` a row's packets are ``index[r]:index[r + 1]``.
    """

    first: np.ndarray
    rows: np.ndarray
    volume: np.ndarray
    count: np.ndarray
    times: np.ndarray
    sizes: np.ndarray
    index: np.ndarray


@functools.lru_cache(maxsize=12)
def library(source: str, split: str, kind: str, period: float, bins: int) -> Library:
    """Cut the traces of a kind into periods of ``period`` ms with ``bins`` bins each."""
    first, rows, times, sizes, index = [0], [], [], [], [np.zeros(0, np.int64)]
    for trace in traces(source, split)[kind]:
        count = max(int(trace.duration // period), 1)
        row = (trace.times // period).astype(np.int64)
        keep = row < count
        times.append(trace.times[keep] - row[keep] * period)
        sizes.append(trace.sizes[keep])
        index.append(row[keep] + first[-1])
        rows.append(count)
        first.append(first[-1] + count)
    row = np.concatenate(index)
    time = np.concatenate(times)
    size = np.concatenate(sizes)
    flat = row * bins + np.minimum((time * (bins / period)).astype(np.int64), bins - 1)
    whole = (first[-1] + 1) * bins
    volume = np.bincount(flat, size, minlength=whole).astype(np.float32).reshape(-1, bins)
    number = np.bincount(flat, minlength=whole).astype(np.float32)
    edges = np.searchsorted(row, np.arange(first[-1] + 1))
    return Library(
        np.array(first[:-1]), np.array(rows), volume, number.reshape(-1, bins), time, size, edges
    )
