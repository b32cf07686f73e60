"""The rules of `placer`, played for a batch of programs at once in NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from allocgym.envs.core.record import Record
from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY
from allocgym.envs.memory_mapping.program import PAGES, Device, Op, Program, Tensor

ONE = np.uint64(1)
FULL = np.uint64(2**PAGES - 1)


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


@dataclasses.dataclass
class Options:
    """What each action would do for one segment of every row; the last axis of ``gain`` is actions."""

    legal: np.ndarray
    gain: np.ndarray
    starts: np.ndarray
    offsets: np.ndarray
    extra: list[np.ndarray]


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


def op_seconds(inst: MappingInstance, slow: np.ndarray, fast: np.ndarray) -> np.ndarray:
    """``(batch, T)`` seconds; ``slow`` with the copies."""
    out = slow / inst.slow_rate[:, None]
    out += fast / inst.fast_rate[:, None]
    return np.maximum(inst.comp, out, out=out)


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
    batch, t = inst.comp.shape
    rows = np.arange(batch)[:, None] * t
    size = np.take_along_axis(inst.size, inst.tensor, 1)
    fast = np.bincount((rows + inst.use).ravel(), (size * moved).ravel(), minlength=batch * t)
    fast += np.bincount(
        (rows + np.maximum(inst.born, 0)).ravel(), (inst.size * born).ravel(), minlength=batch * t
    )
    fast = fast.reshape(batch, t)
    total: np.ndarray = op_seconds(inst, inst.base + copied - fast, fast).sum(1)
    return total


def _fit(used: np.ndarray, size: np.ndarray) -> np.ndarray:
    """First offset at which ``size`` granules in a row are free, -1 where there is none."""
    free = ~used
    have = np.ones(len(size), np.int64)
    for _ in range(6):
        step = np.minimum(have, np.maximum(size - have, 0))
        free = free & (free >> step.astype(np.uint64))
        have += step
    low = free & (~free + ONE)
    found = np.bitwise_count(low - ONE).astype(np.int64)
    return np.where((free == 0) | (size > PAGES), -1, found)


def _fit_long(now: np.ndarray, rest: np.ndarray, size: np.ndarray) -> np.ndarray:
    whole = _fit(now | rest, size)
    return np.where(whole >= 0, whole, _fit(now, size))


def _mask(offset: np.ndarray, size: np.ndarray) -> np.ndarray:
    block = FULL >> (PAGES - np.clip(size, 1, PAGES)).astype(np.uint64)
    return block << np.maximum(offset, 0).astype(np.uint64)


def _used(taken: np.ndarray, window: np.ndarray) -> np.ndarray:
    return np.bitwise_or.reduce(np.where(window, taken, np.uint64(0)), axis=1)


def _spread(idle: np.ndarray, window: np.ndarray, last: np.ndarray, size: np.ndarray) -> np.ndarray:
    room = np.where(window, idle, 0)
    behind = room[:, ::-1].cumsum(1)[:, ::-1]
    parts = np.clip(size[:, None] - (behind - room), 0, room)
    rows = np.arange(len(size))
    parts[rows, last] += np.maximum(size - behind[:, 0], 0)
    return parts


def options(inst: MappingInstance, board: Board, segment: np.ndarray) -> Options:
    """What drop, stay and copy would do to ``segment`` (one index per row)."""
    batch, t = inst.comp.shape
    rows = np.arange(batch)
    x = inst.tensor[rows, segment]
    since, use = inst.since[rows, segment], inst.use[rows, segment]
    first, born = inst.first[rows, segment], inst.born[rows, x]
    size, pages = inst.size[rows, x], inst.pages[rows, x]
    ops = np.arange(t)[None]
    upto = ops <= use[:, None]
    after = ops > since[:, None]
    bus = board.slow + board.copied
    before = op_seconds(inst, bus, board.fast)
    room = (inst.comp - board.fast / inst.fast_rate[:, None]) * inst.slow_rate[:, None]
    idle = np.maximum(np.floor(room).astype(np.int64) - bus, 0)
    legal = np.zeros((batch, 3), bool)
    gain = np.zeros((batch, 3))
    starts, offsets = np.full((batch, 3), -1), np.full((batch, 3), -1)
    # Written back where it leaves fast memory, or (outputs) while it is there for the first time.
    owed = board.owed[rows, x]
    lived = ops > born[:, None]
    nothing = np.zeros((batch, t), np.int64)
    leave = nothing
    if owed.any():
        parts = _spread(idle, lived & ~after, np.maximum(since, 0), size)
        leave = np.where(owed[:, None], parts, 0)
    fresh = first & (since >= 0)
    keep = nothing
    outputs = fresh & inst.output[rows, x]
    if outputs.any():
        parts = _spread(idle, after & upto, use, size)
        keep = np.where(outputs[:, None], parts, 0)
    fetch = _spread(idle, after & (ops < use[:, None]), np.maximum(use - 1, 0), size)
    fetch_start = (fetch > 0).argmax(1)
    here = (board.offset[rows, x] >= 0) & (board.end[rows, x] == since) & ~first
    life = (ops <= inst.last[rows, x][:, None]) & ~upto
    rest = _used(board.taken, life)
    now = _used(board.taken, (ops >= since[:, None]) & upto)
    placed = _fit_long(now, rest, pages)
    same = board.offset[rows, x]
    free = (_used(board.taken, after & upto) & _mask(same, pages)) == 0
    legal[:, DROP] = True
    legal[:, STAY] = np.where(fresh, placed >= 0, here & free)
    offsets[:, STAY] = np.where(fresh, placed, same)
    starts[:, STAY] = np.where(fresh, since, since + 1)
    now = _used(board.taken, (ops >= fetch_start[:, None]) & upto)
    offsets[:, COPY] = _fit_long(now, rest, pages)
    starts[:, COPY] = fetch_start
    legal[:, COPY] = (use - since >= 2) & (offsets[:, COPY] >= 0)
    extra = [leave, keep, fetch + leave]
    shift = np.zeros((batch, t), np.int64)
    for action in (DROP, STAY, COPY):
        if action:
            shift[rows, use] = size
        if action == STAY:
            shift[rows[fresh], since[fresh]] = size[fresh]
        elif action == COPY:
            shift[rows[fresh], since[fresh]] = 0
        if action == DROP and not owed.any():
            continue
        then = op_seconds(inst, bus - shift + extra[action], board.fast + shift)
        gain[:, action] = (before - then).sum(1)
    legal[segment >= inst.count] = (True, False, False)
    return Options(legal, gain, starts, offsets, extra)


def apply(
    inst: MappingInstance,
    board: Board,
    segment: np.ndarray,
    action: np.ndarray,
    on: np.ndarray,
    found: Options | None = None,
) -> None:
    """Play ``action`` on ``segment`` in the rows of ``on``, in place; what is not legal is a drop."""
    o = found or options(inst, board, segment)
    rows = np.arange(len(segment))
    on = on & (segment < inst.count)
    legal = o.legal[rows, action]
    action = np.where(legal, action, DROP)
    board.legal = np.where(on, legal, board.legal)
    x = inst.tensor[rows, segment]
    since, use = inst.since[rows, segment], inst.use[rows, segment]
    fresh = inst.first[rows, segment] & (since >= 0)
    size = inst.size[rows, x]
    extra = np.where(
        (action == STAY)[:, None],
        o.extra[STAY],
        np.where((action == COPY)[:, None], o.extra[COPY], o.extra[DROP]),
    )
    board.copied += np.where(on[:, None], extra, 0)
    born = on & (action == STAY) & fresh
    into = on & (action != DROP)
    for who, when in ((into, use), (born, since)):
        r, c = rows[who], when[who]
        board.slow[r, c] -= size[who]
        board.fast[r, c] += size[who]
    ops = np.arange(inst.comp.shape[1])[None]
    offset, begin = o.offsets[rows, action], o.starts[rows, action]
    area = (ops >= begin[:, None]) & (ops <= use[:, None]) & into[:, None]
    mask = _mask(offset, inst.pages[rows, x])
    board.taken |= np.where(area, mask[:, None], np.uint64(0))
    r, c = rows[on], x[on]
    board.offset[r, c] = np.where(into, offset, -1)[on]
    board.end[r, c] = use[on]
    board.owed[r, c] = np.where(
        action == STAY, np.where(fresh, ~inst.output[rows, x], board.owed[rows, x]), False
    )[on]
    board.acted[r, segment[on]] = action[on]
    board.seconds = board.seconds - np.where(on, o.gain[rows, action], 0)


def place(inst: MappingInstance, board: Board, tensor: np.ndarray, on: np.ndarray) -> None:
    """Place all segments of one tensor per row greedily, in place (a step of the order game)."""
    rows = np.arange(len(tensor))
    segment = inst.head[rows, tensor]
    on = on & (segment >= 0)
    while on.any():
        at = np.maximum(segment, 0)
        o = options(inst, board, at)
        following = np.where(on, inst.following[rows, at], -1)
        ahead = potential(inst, board, np.maximum(following, 0))
        ahead = np.where(following >= 0, ahead, 0.0)
        score = np.where(o.legal, o.gain, -np.inf)
        score[:, STAY:] += ahead[:, None]
        score[:, DROP] += 1e-12 * inst.all_slow
        apply(inst, board, at, score.argmax(1), on, o)
        segment = following
        on = on & (segment >= 0)


def potential(inst: MappingInstance, board: Board, segment: np.ndarray) -> np.ndarray:
    """``(batch,)`` seconds the use alone would save, were the operand in fast memory."""
    rows = np.arange(len(segment))
    use = inst.use[rows, segment]
    size = inst.size[rows, inst.tensor[rows, segment]]
    comp = inst.comp[rows, use]
    bus = board.slow[rows, use] + board.copied[rows, use]
    fast = board.fast[rows, use]
    before = np.maximum(comp, bus / inst.slow_rate + fast / inst.fast_rate)
    gain: np.ndarray = before - np.maximum(
        comp, (bus - size) / inst.slow_rate + (fast + size) / inst.fast_rate
    )
    return gain


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
