"""The rules of the mapping game, compiled, in one place: boards, searches and plan makers call these.

The rules decide where and when; whoever plays decides drop, stay or copy:

- *stay*: born in fast memory (first use) or still there from the use before, same granules;
- *copy*: fetched in the ops since the event before, as late as idle bandwidth hides it; what cannot
  be hidden is charged to the op before the use;
- *drop*: read from slow memory. A tensor that was born in fast memory is then written back during
  its stay, in idle bandwidth first.

Offsets are first fit, over the rest of the tensor's life where that is free.

Kernels are handed the arrays of an instance and of a board as named tuples (`board.arrays`). A ``row``
is one game of the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.envs.core.kernels import formula, kernel
from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY
from allocgym.envs.memory_mapping.program import PAGES

FULL = np.uint64(2**PAGES - 1)
NONE, ONE = np.uint64(0), np.uint64(1)


@formula
def op_seconds(comp: Any, bus: Any, fast: Any, slow_rate: Any, fast_rate: Any) -> Any:
    """Seconds of an op: arithmetic runs beside the memory traffic.

    Args:
        comp: seconds of arithmetic.
        bus: bytes to and from slow memory, copies included.
        fast: bytes to and from fast memory.
        slow_rate: bytes a second.
        fast_rate: bytes a second.
    """
    return np.maximum(comp, bus / slow_rate + fast / fast_rate)


@kernel
def _block_total(values: np.ndarray, begin: int, count: int) -> float:
    """Sum of up to 128 values, in eight sums side by side."""
    if count < 8:
        short = 0.0
        for i in range(begin, begin + count):
            short += values[i]
        return short
    a, b, c, d = values[begin], values[begin + 1], values[begin + 2], values[begin + 3]
    e, f, g, h = values[begin + 4], values[begin + 5], values[begin + 6], values[begin + 7]
    whole = begin + count - count % 8
    for i in range(begin + 8, whole, 8):
        a += values[i]
        b += values[i + 1]
        c += values[i + 2]
        d += values[i + 3]
        e += values[i + 4]
        f += values[i + 5]
        g += values[i + 6]
        h += values[i + 7]
    total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    for i in range(whole, begin + count):
        total += values[i]
    return total


@kernel
def _total(values: np.ndarray) -> float:
    """Sum in NumPy's order (halves of halves, down to blocks): small errors, the same bits."""
    count = len(values)
    if count <= 128:
        return _block_total(values, 0, count)
    # A stack of stretches still to be summed; one of length -1 stands for adding the last two sums.
    begins, counts, sums = np.empty(128, np.int64), np.empty(128, np.int64), np.empty(128)
    begins[0], counts[0], waiting, ready = 0, count, 1, 0
    while waiting:
        waiting -= 1
        begin, count = begins[waiting], counts[waiting]
        if count < 0:
            ready -= 1
            sums[ready - 1] += sums[ready]
        elif count <= 128:
            sums[ready] = _block_total(values, begin, count)
            ready += 1
        else:
            half = count // 2
            half -= half % 8
            counts[waiting] = -1
            begins[waiting + 1], counts[waiting + 1] = begin + half, count - half
            begins[waiting + 2], counts[waiting + 2] = begin, half
            waiting += 3
    return sums[0]


@kernel
def _run(used: np.uint64, size: int) -> int:
    """First of ``size`` granules in a row that are free, -1 where there are none."""
    if size > PAGES:
        return -1
    free = ~used
    have = 1
    while have < size and free != NONE:
        step = min(have, size - have)
        free &= free >> np.uint64(step)
        have += step
    if free == NONE:
        return -1
    found = 0
    while free & ONE == NONE:
        free >>= ONE
        found += 1
    return found


@kernel
def _fit(now: np.uint64, later: np.uint64, size: int) -> int:
    """First fit over the rest of a tensor's life; else, until this use."""
    found = _run(now | later, size)
    return found if found >= 0 else _run(now, size)


@kernel
def _block(offset: int, size: int) -> np.uint64:
    """Bits of ``size`` granules from ``offset``."""
    bits = FULL >> np.uint64(PAGES - min(max(size, 1), PAGES))
    return bits << np.uint64(max(offset, 0))


@kernel
def _used(taken: np.ndarray, begin: int, end: int) -> np.uint64:
    """Granules taken during any op from ``begin`` to ``end``."""
    used = NONE
    for t in range(max(begin, 0), end + 1):
        used |= taken[t]
    return used


@kernel
def _spread(
    inst: Any, board: Any, row: int, begin: int, end: int, size: int, parts: np.ndarray
) -> int:
    """Lay bytes into the idle bandwidth of ops ``begin`` to ``end``, the last first.

    What idle bandwidth cannot hide goes on the last. Adds to ``parts``; returns the first op used.
    """
    comp, slow_rate, fast_rate = inst.comp[row], inst.slow_rate[row], inst.fast_rate[row]
    slow, fast, copied = board.slow[row], board.fast[row], board.copied[row]
    left, first = size, end
    for t in range(end, begin - 1, -1):
        room = np.floor((comp[t] - fast[t] / fast_rate) * slow_rate)
        idle = np.int64(min(room, 2.0**62)) - (slow[t] + copied[t])
        take = min(max(idle, 0), left)
        if take > 0:
            parts[t] += take
            left -= take
            first = t
        if left == 0:
            return first
    parts[max(end, 0)] += left
    return max(first, 0)


@kernel
def _gain(
    inst: Any,
    board: Any,
    row: int,
    moved: tuple[int, int],
    size: int,
    span: tuple[int, int],
    parts: np.ndarray,
    saved: np.ndarray,
) -> float:
    """Seconds saved where the ops ``moved`` (-1: none) have an operand of ``size`` in fast memory.

    ``parts`` bytes are copied besides; nothing changes outside ops ``span``; ``saved`` holds zeros.
    """
    comp, slow_rate, fast_rate = inst.comp[row], inst.slow_rate[row], inst.fast_rate[row]
    slow, fast, copied = board.slow[row], board.fast[row], board.copied[row]
    for t in range(span[0], span[1] + 1):
        shift = size if t == moved[0] or t == moved[1] else 0
        if shift or parts[t]:
            bus = slow[t] + copied[t]
            then = op_seconds(
                comp[t], bus - shift + parts[t], fast[t] + shift, slow_rate, fast_rate
            )
            saved[t] = op_seconds(comp[t], bus, fast[t], slow_rate, fast_rate) - then
    total = _total(saved)
    saved[span[0] : span[1] + 1] = 0.0
    return total


@kernel
def scratch(ops: int) -> Any:
    """Arrays that `look` writes to, for programs of ``ops`` ops.

    Returns:
        ``legal``, ``gain``, ``begin`` and ``offset``, ``(3,)`` each: whether an action is legal, the
        seconds it saves, the first op during which it takes granules and the first granule; ``parts``,
        ``(3, ops)`` bytes copied during each op; ``(ops,)`` zeros to work with.
    """
    return (
        np.empty(3, np.bool_),
        np.empty(3),
        np.empty(3, np.int64),
        np.empty(3, np.int64),
        np.empty((3, ops), np.int64),
        np.zeros(ops),
    )


@kernel
def look(inst: Any, board: Any, row: int, segment: int, found: Any) -> None:
    """Write to ``found``, of `scratch`, what drop, stay and copy would do to a segment."""
    legal, gain, begin, offset, parts, saved = found
    x = inst.tensor[row, segment]
    since, use, first = inst.since[row, segment], inst.use[row, segment], inst.first[row, segment]
    size, pages, born = inst.size[row, x], inst.pages[row, x], inst.born[row, x]
    output, last = inst.output[row, x], inst.last[row, x]
    taken, place = board.taken[row], board.offset[row, x]
    fresh = first and since >= 0
    parts[:] = 0
    start = since
    # Written back where it leaves fast memory, or (outputs) while it is there for the first time.
    fetched = _spread(inst, board, row, since + 1, use - 1, size, parts[COPY])
    if board.owed[row, x]:
        start = min(born + 1, since)
        _spread(inst, board, row, born + 1, since, size, parts[DROP])
        for t in range(start, since + 1):
            parts[COPY, t] += parts[DROP, t]
    if fresh and output:
        _spread(inst, board, row, since + 1, use, size, parts[STAY])
    later = _used(taken, use + 1, last)
    legal[DROP], begin[DROP], offset[DROP] = True, -1, -1
    if fresh:
        offset[STAY] = _fit(_used(taken, since, use), later, pages)
        begin[STAY] = since
        legal[STAY] = offset[STAY] >= 0
    else:
        free = _used(taken, since + 1, use) & _block(place, pages) == NONE
        offset[STAY], begin[STAY] = place, since + 1
        legal[STAY] = not first and place >= 0 and board.end[row, x] == since and free
    offset[COPY] = _fit(_used(taken, fetched, use), later, pages)
    begin[COPY] = fetched
    legal[COPY] = use - since >= 2 and offset[COPY] >= 0
    span = max(start, 0), use
    gain[DROP] = _gain(inst, board, row, (-1, -1), size, span, parts[DROP], saved)
    moved = use, since if fresh else -1
    gain[STAY] = _gain(inst, board, row, moved, size, span, parts[STAY], saved)
    gain[COPY] = _gain(inst, board, row, (use, -1), size, span, parts[COPY], saved)


@kernel
def play(inst: Any, board: Any, row: int, segment: int, action: int, found: Any) -> None:
    """Do to a segment what `look` has ``found`` of a legal action; the board changes in place."""
    _, gain, begin, offset, parts, _ = found
    x = inst.tensor[row, segment]
    since, use = inst.since[row, segment], inst.use[row, segment]
    size, pages = inst.size[row, x], inst.pages[row, x]
    fresh = inst.first[row, segment] and since >= 0
    slow, fast, copied, taken = (
        board.slow[row],
        board.fast[row],
        board.copied[row],
        board.taken[row],
    )
    for t in range(use + 1):
        copied[t] += parts[action, t]
    if action != DROP:
        slow[use] -= size
        fast[use] += size
        block = _block(offset[action], pages)
        for t in range(begin[action], use + 1):
            taken[t] |= block
    if action == STAY and fresh:
        slow[since] -= size
        fast[since] += size
    board.offset[row, x] = offset[action] if action != DROP else -1
    board.end[row, x] = use
    if action != STAY:
        board.owed[row, x] = False
    elif fresh:
        board.owed[row, x] = not inst.output[row, x]
    board.acted[row, segment] = action
    board.seconds[row] -= gain[action]


@kernel
def place(inst: Any, board: Any, row: int, tensor: int, found: Any) -> None:
    """Place all segments of a tensor greedily: most time saved, the next use's potential counted in."""
    comp, slow_rate, fast_rate = inst.comp[row], inst.slow_rate[row], inst.fast_rate[row]
    slow, fast, copied = board.slow[row], board.fast[row], board.copied[row]
    size, segment = inst.size[row, tensor], inst.head[row, tensor]
    legal, gain = found[0], found[1]
    while segment >= 0:
        look(inst, board, row, segment, found)
        after = inst.following[row, segment]
        ahead = 0.0
        if after >= 0:
            use = inst.use[row, after]
            bus, quick = slow[use] + copied[use], fast[use]
            ahead = op_seconds(comp[use], bus, quick, slow_rate, fast_rate)
            ahead -= op_seconds(comp[use], bus - size, quick + size, slow_rate, fast_rate)
        chosen, best = DROP, gain[DROP] + 1e-12 * inst.all_slow[row]
        for a in (STAY, COPY):
            if legal[a] and gain[a] + ahead > best:
                chosen, best = a, gain[a] + ahead
        board.legal[row] = True
        play(inst, board, row, segment, chosen, found)
        segment = after


@kernel
def look_many(
    inst: Any, board: Any, segment: np.ndarray, legal: np.ndarray, gain: np.ndarray
) -> None:
    """Say of one segment per row which actions are legal and what they save, ``(batch, 3)`` each."""
    found = scratch(inst.comp.shape[1])
    for row in range(len(segment)):
        look(inst, board, row, segment[row], found)
        legal[row], gain[row] = found[0], found[1]
        if segment[row] >= inst.count[row]:
            legal[row, STAY], legal[row, COPY] = False, False


@kernel
def play_many(
    inst: Any, board: Any, segment: np.ndarray, action: np.ndarray, on: np.ndarray
) -> None:
    """Play one segment per row of ``on``; what is not legal is a drop."""
    found = scratch(inst.comp.shape[1])
    for row in range(len(segment)):
        if on[row] and segment[row] < inst.count[row]:
            look(inst, board, row, segment[row], found)
            legal = found[0][action[row]]
            board.legal[row] = legal
            play(inst, board, row, segment[row], action[row] if legal else DROP, found)


@kernel
def place_many(inst: Any, board: Any, tensors: np.ndarray, on: np.ndarray) -> None:
    """Place ``(batch, k)`` tensors greedily, one after the other, in the rows of ``on``."""
    found = scratch(inst.comp.shape[1])
    for row in range(len(on)):
        if on[row]:
            for k in range(tensors.shape[1]):
                place(inst, board, row, tensors[row, k], found)


@kernel
def price_many(
    inst: Any, moved: np.ndarray, born: np.ndarray, copied: np.ndarray, seconds: np.ndarray
) -> None:
    """Price complete plans: what is in fast memory, by segment and by birth, and bytes copied."""
    batch, ops = copied.shape
    fast, each = np.empty(ops, np.int64), np.empty(ops)
    for row in range(batch):
        fast[:] = 0
        for s in range(moved.shape[1]):
            if moved[row, s]:
                fast[inst.use[row, s]] += inst.size[row, inst.tensor[row, s]]
        for x in range(born.shape[1]):
            if born[row, x]:
                fast[max(inst.born[row, x], 0)] += inst.size[row, x]
        for t in range(ops):
            bus = inst.base[row, t] + copied[row, t] - fast[t]
            each[t] = op_seconds(
                inst.comp[row, t], bus, fast[t], inst.slow_rate[row], inst.fast_rate[row]
            )
        seconds[row] = _total(each)
