"""Buffers with fixed lifetimes: an instance, its files, and a validator of packings."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io

import numpy as np

from allocgym.envs.core.errors import AllocgymError

NAMES = {"start": "lower", "end": "upper", "buffer_id": "id", "buffer": "id"}
LARGEST = 2**40
"""No time or size may be larger."""


@dataclasses.dataclass(frozen=True)
class Buffers:
    """An instance.

    Attributes:
        name: of the instance.
        lower, upper: ``(n,)`` int64, alive from ``lower`` until just before ``upper``.
        size: ``(n,)`` int64 bytes.
        capacity: bytes there are.
        known: ``(n,)`` offsets of a packing known to fit (generated instances), or None.
    """

    name: str
    lower: np.ndarray
    upper: np.ndarray
    size: np.ndarray
    capacity: int
    known: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not len(self.size) or self.capacity < 1:
            raise AllocgymError(f"packing {self.name}: buffers and a capacity >= 1 expected")
        if (self.lower >= self.upper).any() or (self.size < 1).any():
            raise AllocgymError(f"packing {self.name}: lower < upper and size >= 1 expected")
        if self.lower.min() < -LARGEST or max(self.upper.max(), self.size.max()) > LARGEST:
            raise AllocgymError(f"packing {self.name}: times and sizes up to 2**40 expected")

    @functools.cached_property
    def loads(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bytes alive per stretch of time, and each buffer's first and one-past-last stretch."""
        marks = np.unique(np.concatenate([self.lower, self.upper]))
        first, last = np.searchsorted(marks, self.lower), np.searchsorted(marks, self.upper)
        change = np.zeros(len(marks) + 1, np.int64)
        np.add.at(change, first, self.size)
        np.add.at(change, last, -self.size)
        return change.cumsum()[:-1], first, last

    @property
    def peak(self) -> int:
        """Most bytes alive at once: no packing is lower."""
        return int(self.loads[0].max())

    @functools.cached_property
    def contention(self) -> np.ndarray:
        """``(n,)`` most bytes alive during each buffer's life."""
        load, first, last = self.loads
        return np.array([load[a:b].max() for a, b in zip(first, last, strict=True)])


def from_csv(text: str, name: str, capacity: int) -> Buffers:
    """Read MiniMalloc's table: ``id, lower, upper, size`` (``start`` and ``end`` are understood too).

    Raises:
        AllocgymError: a column is missing, or one (alignment, gaps) that is not supported is used.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise AllocgymError(f"packing {name}: a table expected ({error})") from error
    table = [{NAMES.get(k.strip(), k.strip()): v for k, v in row.items() if k} for row in rows]
    for row in table:
        for key in ("alignment", "gaps"):
            if row.get(key) not in (None, "", "1"):
                raise AllocgymError(f"packing {name}: column {key!r} is not supported")
    try:
        columns = [
            np.array([int(r[k]) for r in table], np.int64) for k in ("lower", "upper", "size")
        ]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise AllocgymError(
            f"packing {name}: columns id, lower, upper, size of whole numbers expected ({error})"
        ) from error
    return Buffers(name, columns[0], columns[1], columns[2], capacity)


def to_csv(buffers: Buffers, offsets: np.ndarray | None = None) -> str:
    """Write an instance as `from_csv` reads it, with its offsets where there are any."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "lower", "upper", "size"] + (["offset"] if offsets is not None else []))
    for i in range(len(buffers.size)):
        row = [i, buffers.lower[i], buffers.upper[i], buffers.size[i]]
        writer.writerow([*row, offsets[i]] if offsets is not None else row)
    return out.getvalue()


def validate(buffers: Buffers, offsets: np.ndarray) -> int:
    """Check a packing from its offsets alone; return its height.

    Raises:
        AllocgymError: naming two buffers that share bytes at a time, or one below zero.
    """
    low = np.asarray(offsets)
    if low.shape != buffers.size.shape or (low < 0).any():
        raise AllocgymError(f"packing {buffers.name}: an offset >= 0 for each buffer expected")
    high = low + buffers.size
    when = (buffers.lower[:, None] < buffers.upper) & (buffers.lower < buffers.upper[:, None])
    where = (low[:, None] < high) & (low < high[:, None])
    both = np.triu(when & where, 1)
    if both.any():
        i, j = np.argwhere(both)[0]
        raise AllocgymError(f"packing {buffers.name}: buffers {i} and {j} share bytes")
    return int(high.max())
