"""Packing: offsets for buffers whose lifetimes are fixed, at the least height."""

from __future__ import annotations

import csv
import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.choice import PickProblem
from allocgym.envs.core.contracts import Decision, Outcome
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.kernels import kernel
from allocgym.envs.core.record import Record, nested

FEATURES = (
    "size",
    "lifetime",
    "birth",
    "contention",
    "neighbours left",
    "placed",
    "offset",
    "top it would reach",
)
NAMES = {"start": "lower", "end": "upper", "buffer_id": "id", "buffer": "id"}


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
    rows = list(csv.DictReader(io.StringIO(text)))
    table = [{NAMES.get(k.strip(), k.strip()): v for k, v in row.items() if k} for row in rows]
    for row in table:
        for key in ("alignment", "gaps"):
            if row.get(key) not in (None, "", "1"):
                raise AllocgymError(f"packing {name}: column {key!r} is not supported")
    try:
        columns = [
            np.array([int(r[k]) for r in table], np.int64) for k in ("lower", "upper", "size")
        ]
    except (KeyError, TypeError, ValueError) as error:
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


@kernel
def _lowest(
    b: int,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    offset: np.ndarray,
    stack: np.ndarray,
    count: int,
) -> int:
    """Lowest offset at which ``b`` shares no byte with what is placed (``stack``: lowest first)."""
    top = 0
    for k in range(count):
        j = stack[k]
        if lower[j] < upper[b] and lower[b] < upper[j]:
            if offset[j] - top >= size[b]:
                return top
            top = max(top, offset[j] + size[j])
    return top


@kernel
def _put(b: int, at: int, offset: np.ndarray, stack: np.ndarray, count: int) -> None:
    k = count
    while k > 0 and offset[stack[k - 1]] > at:
        stack[k] = stack[k - 1]
        k -= 1
    stack[k] = b
    offset[b] = at


@kernel
def place(
    order: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    offset: np.ndarray,
    stack: np.ndarray,
) -> int:
    """Place buffers in an order, each as low as it goes; fill ``offset``, return the height.

    Args:
        order: ``(n,)`` indices.
        lower: ``(n,)`` first time of each buffer.
        upper: ``(n,)`` time after the last.
        size: ``(n,)`` bytes.
        offset: ``(n,)`` int64, written to.
        stack: ``(n,)`` int64, written to: what is placed, lowest first.
    """
    height = 0
    for count in range(len(order)):
        b = order[count]
        at = _lowest(b, lower, upper, size, offset, stack, count)
        _put(b, at, offset, stack, count)
        height = max(height, at + size[b])
    return height


@kernel
def place_many(
    pick: np.ndarray,
    on: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    offset: np.ndarray,
    stack: np.ndarray,
    count: np.ndarray,
) -> None:
    """Place one buffer per row of ``on``, in place: ``(batch, n)`` arrays, ``(batch,)`` counts."""
    for r in range(len(pick)):
        if on[r]:
            b = pick[r]
            at = _lowest(b, lower[r], upper[r], size[r], offset[r], stack[r], count[r])
            _put(b, at, offset[r], stack[r], count[r])
            count[r] += 1


@kernel
def look_ahead(
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    offset: np.ndarray,
    stack: np.ndarray,
    count: np.ndarray,
    present: np.ndarray,
    top: np.ndarray,
    near: np.ndarray,
) -> None:
    """For buffers not placed: the top each would reach now, and how many others wait beside it."""
    for r in range(len(count)):
        n = present.shape[1]
        for b in range(n):
            top[r, b], near[r, b] = 0, 0
            if present[r, b] and offset[r, b] < 0:
                at = _lowest(b, lower[r], upper[r], size[r], offset[r], stack[r], count[r])
                top[r, b] = at + size[r, b]
                for j in range(n):
                    if present[r, j] and offset[r, j] < 0 and j != b:
                        near[r, b] += lower[r, j] < upper[r, b] and lower[r, b] < upper[r, j]


@dataclasses.dataclass(eq=False)
class PackingState(Record):
    """A batch of instances, padded, and what is placed so far.

    Attributes:
        lower, upper, size, contention: ``(batch, n)`` of the buffers.
        offset: ``(batch, n)`` bytes, -1 where not placed.
        top, near: ``(batch, n)`` see `look_ahead`.
        present: ``(batch, n)`` bool, not padding.
        capacity, peak, height: ``(batch,)`` bytes there are, the bound, and reached so far.
    """

    lower: np.ndarray
    upper: np.ndarray
    size: np.ndarray
    contention: np.ndarray
    offset: np.ndarray
    top: np.ndarray
    near: np.ndarray
    present: np.ndarray
    capacity: np.ndarray
    peak: np.ndarray
    height: np.ndarray


@dataclasses.dataclass(eq=False)
class NextBuffer(Decision):
    """The buffer placed next, ``(batch,)``; -1 where the episode is over."""

    pick: np.ndarray


@dataclasses.dataclass(eq=False)
class PackingOutcome(Outcome):
    """What is known after a placement; ``step`` is ``(batch,)`` buffers placed."""

    state: PackingState = nested(PackingState)
    step: np.ndarray

    @property
    def height(self) -> np.ndarray:
        """``(batch,)`` height so far over the capacity."""
        share: np.ndarray = self.state.height / self.state.capacity
        return share


@dataclasses.dataclass(eq=False)
class PackingMemory(Record):
    """What an agent remembers; ``objective`` is minus the height over the capacity (-1 or more: fits)."""

    state: PackingState = nested(PackingState)
    step: np.ndarray
    objective: np.ndarray
    done: np.ndarray


class Packing(PickProblem[PackingOutcome, PackingMemory, NextBuffer]):
    """See `PackingEnv`.

    Args:
        n_max: rows of buffers.
        illegal: ``"refuse"`` or ``"first"`` (a buffer that cannot be chosen: the first one left).
    """

    id: ClassVar[str] = "packing"
    outcome_type = PackingOutcome
    decision_type = NextBuffer
    features = FEATURES
    most = 4096
    traces: ClassVar[Mapping[str, str]] = {"height": "height over the capacity (1 or less fits)"}

    def __init__(self, n_max: int = 64, illegal: str = "refuse") -> None:
        super().__init__(n_max, illegal)

    def begin(self, outcome: PackingOutcome) -> PackingMemory:
        """See `Problem.begin`."""
        s = outcome.state
        return PackingMemory(s, outcome.step, -s.height / s.capacity, outcome.done)

    def update(self, memory: PackingMemory, outcome: PackingOutcome) -> PackingMemory:
        """See `Problem.update`."""
        return self.begin(outcome)

    def masks(self, memory: PackingMemory) -> np.ndarray:
        """``(batch, n_max)`` bool, the buffers left; one where the episode is over."""
        left = memory.state.present & (memory.state.offset < 0)
        left[memory.done, 0] = True
        return left

    def encode(self, memory: PackingMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        s = memory.state
        unit = s.capacity[:, None].astype(float)
        begin = np.where(s.present, s.lower, np.iinfo(np.int64).max).min(1, keepdims=True)
        span = np.maximum(s.upper.max(1, keepdims=True) - begin, 1)
        count = np.maximum(s.present.sum(1, keepdims=True), 1)
        placed = s.offset >= 0
        rows = np.stack(
            [
                4 * s.size / unit,
                (s.upper - s.lower) / span,
                (s.lower - begin) / span,
                s.contention / unit,
                4 * s.near / count,
                placed,
                np.where(placed, s.offset, 0) / unit,
                s.top / unit,
            ],
            -1,
        )
        rows = np.clip(rows, -10, 10).astype(np.float32)
        rows[~s.present] = 0
        context = np.stack(
            [
                memory.step / count[:, 0],
                np.minimum(s.height / s.capacity, 10),
                np.minimum(s.peak / s.capacity, 10),
                np.log1p(count[:, 0]) / 4,
            ],
            1,
        )
        return {
            "claimants": rows,
            "context": context.astype(np.float32),
            "present": s.present.astype(np.int8),
            "action_mask": self.masks(memory).astype(np.int8),
        }

    def refusal(self, pick: int, row: int, memory: PackingMemory) -> str:
        """See `PickProblem.refusal`."""
        return f"buffer {pick} is placed already, or padding (ask action_masks())"

    def reward(self, before: PackingMemory, after: PackingMemory) -> dict[str, np.ndarray]:
        """Minus the height added by this buffer, over the capacity; the return is minus the height."""
        return {"height": after.objective - before.objective}

    def tabulate(self, decision: NextBuffer, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        return {"choice": f"buffer {decision.pick[0]}"}

    def describe(self, memory: PackingMemory) -> dict[str, Any]:
        """Numbers for a status line."""
        return {"step": int(memory.step[0]), "height": -float(memory.objective[0])}
