"""Programs, devices and use segments: what a mapping decides about."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError

LARGEST = 1e18
"""No more bytes, moves included, or FLOPs of an op: they are added up as whole numbers."""
PAGES = 64
"""Granules of fast memory: a buffer takes whole, contiguous ones."""


@dataclasses.dataclass(frozen=True)
class Op:
    """One operation: name, floating-point operations, tensors read and written (by index)."""

    name: str
    flops: float
    reads: tuple[int, ...]
    writes: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One buffer.

    Attributes:
        name: shown in reports.
        size: bytes.
        born: index of the op that writes it; -1 for parameters and inputs (they start in slow memory).
        uses: ops that read it, ascending, each after ``born``.
        output: it has to be in slow memory at the end.
    """

    name: str
    size: int
    born: int
    uses: tuple[int, ...]
    output: bool = False


@dataclasses.dataclass(frozen=True)
class Device:
    """A machine with two memories.

    Attributes:
        compute: floating-point operations a second.
        slow, fast: bandwidth of either memory, bytes a second.
        capacity: bytes of fast memory, `PAGES` granules.
        link: bandwidth to a third, slowest tier (activation plans), bytes a second each way.
    """

    compute: float = 138e12
    slow: float = 614e9
    fast: float = 6.14e12
    capacity: int = 128 * 2**20
    link: float = 50e9

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) > 0:
                raise AllocgymError(
                    f"{field.name}: a number > 0 expected, given {getattr(self, field.name)}"
                )

    def pages(self, size: int) -> int:
        """Granules that ``size`` bytes take."""
        return max(-(-size * PAGES // self.capacity), 1)


@dataclasses.dataclass(frozen=True)
class Segment:
    """One decision: a use of a tensor, reached from the event before it (its birth or last use).

    Attributes:
        tensor: index.
        since: op of the event before; -1 where the tensor is a parameter or input.
        use: op that reads it.
        first: it is the tensor's first use.
    """

    tensor: int
    since: int
    use: int
    first: bool


@dataclasses.dataclass(frozen=True)
class Program:
    """A straight-line program: ops in order and the tensors between them."""

    name: str
    ops: tuple[Op, ...]
    tensors: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if not self.ops:
            raise AllocgymError("program: at least one op expected")
        for op in self.ops:
            if not 0 <= op.flops <= LARGEST:
                raise AllocgymError(
                    f"op {op.name}: 0 to {LARGEST:g} FLOPs expected, given {op.flops}"
                )
        if sum(x.size * (len(x.uses) + 1) for x in self.tensors) > LARGEST:
            raise AllocgymError(f"program: at most {LARGEST:g} bytes expected, moves included")
        for i, x in enumerate(self.tensors):
            if x.size < 1 or list(x.uses) != sorted(set(x.uses)):
                raise AllocgymError(f"tensor {x.name}: size >= 1 and ascending uses expected")
            if (x.uses and x.uses[0] <= x.born) or any(u >= len(self.ops) for u in x.uses):
                raise AllocgymError(f"tensor {x.name}: used before it is written, or after the end")
            if x.born >= 0 and i not in self.ops[x.born].writes:
                raise AllocgymError(f"tensor {x.name}: op {x.born} does not write it")

    @functools.cached_property
    def segments(self) -> tuple[Segment, ...]:
        """Use segments in program order."""
        found = [
            Segment(i, before, use, n == 0)
            for i, x in enumerate(self.tensors)
            for n, (before, use) in enumerate(zip((x.born, *x.uses), x.uses, strict=False))
        ]
        return tuple(sorted(found, key=lambda s: (s.use, s.tensor)))

    @functools.cached_property
    def of_tensor(self) -> tuple[tuple[int, ...], ...]:
        """Indices into `segments`, in program order, for each tensor."""
        found: list[list[int]] = [[] for _ in self.tensors]
        for i, s in enumerate(self.segments):
            found[s.tensor].append(i)
        return tuple(map(tuple, found))

    @functools.cached_property
    def traffic(self) -> np.ndarray:
        """``(ops,)`` int64 bytes each op moves."""
        total = np.zeros(len(self.ops), np.int64)
        for x in self.tensors:
            if x.born >= 0:
                total[x.born] += x.size
            for use in x.uses:
                total[use] += x.size
        return total

    def compute(self, device: Device) -> np.ndarray:
        """``(ops,)`` seconds of arithmetic."""
        return np.array([op.flops for op in self.ops], float) / device.compute

    def all_slow(self, device: Device) -> float:
        """Seconds with everything in slow memory: the denominator of every score."""
        return float(np.maximum(self.compute(device), self.traffic / device.slow).sum())

    def all_fast(self, device: Device) -> float:
        """Seconds were every operand in fast memory from the start: a bound nobody beats."""
        return float(np.maximum(self.compute(device), self.traffic / device.fast).sum())

    @functools.cached_property
    def peak(self) -> int:
        """Most bytes alive at once (parameters only while they are used)."""
        live = np.zeros(len(self.ops) + 1, np.int64)
        for x in self.tensors:
            if not x.uses:
                continue
            start = x.born if x.born >= 0 else x.uses[0]
            live[start] += x.size
            live[x.uses[-1] + 1] -= x.size
        return int(live.cumsum().max())


def build(
    name: str,
    ops: Sequence[tuple[str, float, Sequence[str], Sequence[str]]],
    sizes: Mapping[str, int],
    outputs: Sequence[str] = (),
    alias: Mapping[str, str] | None = None,
) -> Program:
    """Make a program from named tensors.

    Args:
        name: of the program.
        ops: ``(name, flops, reads, writes)`` in order.
        sizes: bytes by tensor.
        outputs: tensors that have to be in slow memory at the end.
        alias: view or in-place result -> the tensor whose storage it shares. A group is one buffer
            with one decision, so that no choice can contradict another.
    """
    owner = dict(alias or {})

    def root(x: str) -> str:
        seen = set()
        while x in owner:
            if x in seen:
                raise AllocgymError(f"alias: {x} is its own alias")
            seen.add(x)
            x = owner[x]
        return x

    index: dict[str, int] = {}
    born: list[int] = []
    uses: list[list[int]] = []
    made: list[Op] = []

    def number(x: str, op: int) -> int:
        if x not in sizes:
            raise AllocgymError(f"tensor {x}: no size given")
        if x not in index:
            index[x] = len(born)
            born.append(op)
            uses.append([])
        return index[x]

    for t, (label, flops, reads, writes) in enumerate(ops):
        got = []
        for x in dict.fromkeys(map(root, reads)):
            i = number(x, -1)
            if born[i] < t:
                uses[i].append(t)
                got.append(i)
        put = []
        for x in dict.fromkeys(map(root, writes)):
            fresh = x not in index
            i = number(x, t)
            if fresh:
                put.append(i)
            elif t not in uses[i] and born[i] != t:
                uses[i].append(t)  # an in-place write touches the buffer once more
        made.append(Op(label, float(flops), tuple(got), tuple(put)))
    names = {i: x for x, i in index.items()}
    last = {root(x) for x in outputs}
    tensors = [
        Tensor(
            names[i], int(sizes[names[i]]), born[i], tuple(sorted(set(uses[i]))), names[i] in last
        )
        for i in range(len(born))
    ]
    return Program(name, tuple(made), tuple(tensors))


def from_trace(data: Mapping[str, Any], name: str, least: int = 0) -> Program:
    """Read a trace: ``{"ops": [{name, flops, ins, out}], "tensors": {name: {size, ...}}}``.

    Args:
        data: as `allocgym trace` writes it (``outs`` instead of ``out`` where an op writes several).
        name: of the program.
        least: tensors smaller than this many bytes are left out (they stay where they are).

    Raises:
        AllocgymError: not a trace, or not a program: sizes and FLOPs that are no numbers or too large,
            a tensor used before it is written.
    """
    try:
        sizes = {k: int(v["size"]) for k, v in data["tensors"].items() if int(v["size"]) > least}
        ops = [
            (
                op["name"],
                float(op["flops"]),
                [x for x in op["ins"] if x in sizes],
                [x for x in (op["outs"] if "outs" in op else [op["out"]]) if x in sizes],
            )
            for op in data["ops"]
        ]
        read = {x for op in ops for x in op[2]}
        ends = [x for op in ops for x in op[3] if x not in read]
        return build(name, ops, sizes, ends + list(data.get("outputs", [])), data.get("alias"))
    except AllocgymError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise AllocgymError(f"trace {name}: 'ops' and 'tensors' expected ({error})") from error


def to_trace(program: Program) -> dict[str, Any]:
    """Write a program as `from_trace` reads it."""
    t = program.tensors
    return {
        "ops": [
            {
                "name": o.name,
                "flops": o.flops,
                "ins": [t[i].name for i in o.reads],
                "outs": [t[i].name for i in o.writes],
            }
            for o in program.ops
        ],
        "tensors": {x.name: {"size": x.size} for x in t},
        "outputs": [x.name for x in t if x.output],
    }
