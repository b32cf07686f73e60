"""Games of a batch of programs as arrays: what is known of them, and where they stand."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Sequence
from typing import Any

import numpy as np

from allocgym.envs.core.record import Record
from allocgym.envs.memory_mapping import rule
from allocgym.envs.memory_mapping.program import Device, Op, Program, Tensor


@dataclasses.dataclass(eq=False)
class MappingInstance(Record):
    """Programs and devices as arrays; T ops, N tensors and S segments are padded.

    Attributes:
        comp: ``(batch, T)`` seconds of arithmetic.
        base: ``(batch, T)`` bytes each op moves.
        size, pages, born: ``(batch, N)`` bytes, granules and op of birth (-1: parameter).
        output: ``(batch, N)`` needed in slow memory at the end.
        last: ``(batch, N)`` op of the last use.
        head: ``(batch, N)`` first segment of each tensor, -1 where it has none.
        tensor, since, use, following: ``(batch, S)`` of each segment; ``following`` is the tensor's
            next segment or -1.
        first: ``(batch, S)`` the tensor's first use.
        count: ``(batch,)`` segments there are.
        tensors: ``(batch,)`` tensors that have a segment.
        slow_rate, fast_rate: ``(batch,)`` bytes a second.
        capacity: ``(batch,)`` bytes of fast memory.
        all_slow: ``(batch,)`` seconds with everything in slow memory.
    """

    comp: np.ndarray
    base: np.ndarray
    size: np.ndarray
    pages: np.ndarray
    born: np.ndarray
    output: np.ndarray
    last: np.ndarray
    head: np.ndarray
    tensor: np.ndarray
    since: np.ndarray
    use: np.ndarray
    following: np.ndarray
    first: np.ndarray
    count: np.ndarray
    tensors: np.ndarray
    slow_rate: np.ndarray
    fast_rate: np.ndarray
    capacity: np.ndarray
    all_slow: np.ndarray


@dataclasses.dataclass(eq=False)
class Board(Record):
    """The state of a batch of games.

    Attributes:
        slow, fast, copied: ``(batch, T)`` bytes of each op by memory, and bytes copied during it.
        taken: ``(batch, T)`` uint64, a bit per granule.
        offset, end: ``(batch, N)`` where a tensor last stayed and until which op (-1: nowhere).
        owed: ``(batch, N)`` written to fast memory only.
        acted: ``(batch, S)`` int8 action of each segment, -1 where it is not decided.
        legal: ``(batch,)`` the last action played was legal.
        seconds: ``(batch,)`` of the whole program now.
    """

    slow: np.ndarray
    fast: np.ndarray
    copied: np.ndarray
    taken: np.ndarray
    offset: np.ndarray
    end: np.ndarray
    owed: np.ndarray
    acted: np.ndarray
    legal: np.ndarray
    seconds: np.ndarray


def _names(kind: type[Record]) -> list[str]:
    return [f.name for f in dataclasses.fields(kind)]


_Instance: Any = namedtuple("_Instance", _names(MappingInstance))  # type: ignore[misc]
_Board: Any = namedtuple("_Board", _names(Board))  # type: ignore[misc]


def arrays(inst: MappingInstance, board: Board) -> tuple[Any, Any]:
    """Arrays of both as `rule`'s kernels take them."""
    return _Instance(*vars(inst).values()), _Board(*vars(board).values())


def pack(
    programs: Sequence[Program], devices: Sequence[Device], shape: tuple[int, int, int]
) -> MappingInstance:
    """Arrays of ``shape`` (T, N, S) from programs."""
    t, n, s = shape
    batch = len(programs)
    whole = {
        "base": t,
        "size": n,
        "pages": n,
        "born": n,
        "last": n,
        "head": n,
        "tensor": s,
        "since": s,
        "use": s,
        "following": s,
    }
    a = {k: np.zeros((batch, width), np.int64) for k, width in whole.items()}
    a["head"][:], a["following"][:], a["born"][:] = -1, -1, -1
    comp, output, first = (
        np.zeros((batch, t)),
        np.zeros((batch, n), bool),
        np.zeros((batch, s), bool),
    )
    for row, (p, d) in enumerate(zip(programs, devices, strict=True)):
        comp[row, : len(p.ops)] = p.compute(d)
        a["base"][row, : len(p.ops)] = p.traffic
        for i, x in enumerate(p.tensors):
            a["size"][row, i], a["pages"][row, i] = x.size, d.pages(x.size)
            a["born"][row, i], output[row, i] = x.born, x.output
            a["last"][row, i] = x.uses[-1] if x.uses else 0
            mine = p.of_tensor[i]
            if mine:
                a["head"][row, i] = mine[0]
                a["following"][row, list(mine[:-1])] = mine[1:]
        for i, g in enumerate(p.segments):
            a["tensor"][row, i], a["since"][row, i], a["use"][row, i] = g.tensor, g.since, g.use
            first[row, i] = g.first
    return MappingInstance(
        comp=comp,
        output=output,
        first=first,
        **a,
        count=np.array([len(p.segments) for p in programs]),
        tensors=np.array([sum(bool(m) for m in p.of_tensor) for p in programs]),
        slow_rate=np.array([d.slow for d in devices], float),
        fast_rate=np.array([d.fast for d in devices], float),
        capacity=np.array([d.capacity for d in devices]),
        all_slow=np.array([p.all_slow(d) for p, d in zip(programs, devices, strict=True)]),
    )


def start(inst: MappingInstance) -> Board:
    """Everything in slow memory."""
    batch, t = inst.comp.shape
    n, s = inst.size.shape[1], inst.tensor.shape[1]
    zeros = np.zeros((batch, t), np.int64)
    return Board(
        inst.base.copy(),
        zeros,
        zeros.copy(),
        np.zeros((batch, t), np.uint64),
        np.full((batch, n), -1),
        np.full((batch, n), -1),
        np.zeros((batch, n), bool),
        np.full((batch, s), -1, np.int8),
        np.ones(batch, bool),
        inst.all_slow.copy(),
    )


def price_many(
    inst: MappingInstance, moved: np.ndarray, born: np.ndarray, copied: np.ndarray
) -> np.ndarray:
    """Price complete plans exactly.

    Args:
        inst: programs.
        moved: ``(batch, S)`` bool, segments read from fast memory.
        born: ``(batch, N)`` bool, tensors written to fast memory.
        copied: ``(batch, T)`` bytes copied during each op.

    Returns:
        ``(batch,)`` seconds.
    """
    seconds = np.empty(len(moved))
    rule.price_many(_Instance(*vars(inst).values()), moved, born, copied, seconds)
    return seconds


def look(inst: MappingInstance, board: Board, segment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say what drop, stay and copy would do to one segment per row.

    Args:
        inst: programs.
        board: state of the games.
        segment: ``(batch,)`` indices.

    Returns:
        ``(batch, 3)`` bool, which are legal, and ``(batch, 3)`` seconds each saves.
    """
    legal, gain = np.empty((len(segment), 3), bool), np.empty((len(segment), 3))
    rule.look_many(*arrays(inst, board), segment, legal, gain)
    return legal, gain


def play(
    inst: MappingInstance, board: Board, segment: np.ndarray, action: np.ndarray, on: np.ndarray
) -> None:
    """Play ``action`` on ``segment`` in the rows of ``on``, in place; what is not legal is a drop."""
    rule.play_many(*arrays(inst, board), segment, action, on)


def place(inst: MappingInstance, board: Board, tensor: np.ndarray, on: np.ndarray) -> None:
    """Place all segments of one tensor per row greedily, in place (a step of the order game)."""
    rule.place_many(*arrays(inst, board), tensor[:, None], on)


def unpack(inst: MappingInstance, row: int) -> tuple[Program, Device]:
    """The program and device of a row (names are numbers; FLOPs are seconds of arithmetic)."""
    ops_used = int(np.flatnonzero((inst.base[row] > 0) | (inst.comp[row] > 0)).max()) + 1
    reads: list[list[int]] = [[] for _ in range(ops_used)]
    writes: list[list[int]] = [[] for _ in range(ops_used)]
    uses: dict[int, list[int]] = {}
    for s in range(int(inst.count[row])):
        uses.setdefault(int(inst.tensor[row, s]), []).append(int(inst.use[row, s]))
    tensors = []
    for i in range(int(np.flatnonzero(inst.size[row]).max()) + 1):
        born = int(inst.born[row, i])
        for u in uses.get(i, ()):
            reads[u].append(i)
        if born >= 0:
            writes[born].append(i)
        size = max(int(inst.size[row, i]), 1)
        tensors.append(
            Tensor(f"x{i}", size, born, tuple(uses.get(i, ())), bool(inst.output[row, i]))
        )
    made = tuple(
        Op(f"op{t}", float(inst.comp[row, t]), tuple(reads[t]), tuple(writes[t]))
        for t in range(ops_used)
    )
    device = Device(
        1.0, float(inst.slow_rate[row]), float(inst.fast_rate[row]), int(inst.capacity[row])
    )
    return Program(f"row-{row}", made, tuple(tensors)), device
