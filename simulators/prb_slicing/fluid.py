"""The fluid model of a period: queues as work, service as a rate. Pure functions, claimant-first.

Work is bytes over what one block carries in a millisecond. With a constant number of blocks the
backlog of a slice has a closed form over the whole period (Lindley's recursion as a running
minimum), so a period costs a handful of passes over ``(batch, bins)`` instead of a loop.
"""

from __future__ import annotations

import dataclasses

import numpy as np

GRID = 16
"""Histogram bins for each doubling of the delay."""
PARTS = 4
"""Parts into which a bin's packets are divided for histograms."""
STEP = 10.0
"""Ms between the steps at which single users are followed."""
CELLS = 256
"""Histogram bins in all: 2 ** (-2) to 2 ** 14 ms."""


@dataclasses.dataclass
class Played:
    """What a period brought, ``(n, u, batch)`` and ``(n, batch)``; see `SlicingOutcome`."""

    arrived: np.ndarray
    served: np.ndarray
    dropped: np.ndarray
    backlog: np.ndarray
    work: np.ndarray
    granted: np.ndarray
    packets: np.ndarray
    late: np.ndarray
    late50: np.ndarray
    delay: np.ndarray

    @classmethod
    def empty(cls, n: int, u: int, batch: int) -> Played:
        """Nothing happened."""
        users = {f: np.zeros((n, u, batch)) for f in list(cls.__dataclass_fields__)[:6]}
        slices = {f: np.zeros((n, batch)) for f in list(cls.__dataclass_fields__)[6:]}
        return cls(**users, **slices)


def water_fill(need: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Max-min fair split: ``min(need, level)`` with the level that spends the capacity.

    Args:
        need: ``(u, batch)``, non-negative.
        capacity: ``(batch,)``, non-negative.

    Returns:
        ``(u, batch)``, at most ``need``; columns sum to ``min(capacity, sum of need)``.
    """
    short = need.sum(0) > capacity
    if not short.any():
        return need.copy()
    out = need.copy()
    w, c = need[:, short], capacity[short]
    ordered = np.sort(w, axis=0)
    below = np.cumsum(ordered, 0) - ordered
    left = np.arange(len(w), 0, -1)[:, None]
    reach = below + ordered * left
    k = (reach < c).sum(0).clip(0, len(w) - 1)
    column = np.arange(w.shape[1])
    level = (c - below[k, column]) / (len(w) - k)
    out[:, short] = np.minimum(w, level)
    return out


def softmax_fill(need: np.ndarray, capacity: np.ndarray, milliseconds: float) -> np.ndarray:
    """SCOPE's policy 2: blocks by the softmax of requested blocks, the rest to who lacks most."""
    request = np.minimum(need / milliseconds, 110.0)
    weight = np.exp(request - request.max(0)) * (need > 0)
    share = weight / np.maximum(weight.sum(0), 1e-30)
    first = np.minimum(need, share * capacity)
    rest = np.maximum(capacity - first.sum(0), 0)
    return first + water_fill(need - first, rest)


def fair_fill(
    need: np.ndarray, capacity: np.ndarray, carries: np.ndarray, average: np.ndarray
) -> np.ndarray:
    """Proportional fair: users in the order of rate over average rate, each takes what it needs."""
    order = np.argsort(-carries / np.maximum(average, 1e-9), axis=0, kind="stable")
    sorted_need = np.take_along_axis(need, order, 0)
    ahead = np.cumsum(sorted_need, 0) - sorted_need
    given = np.clip(capacity - ahead, 0, sorted_need)
    out = np.empty_like(need)
    np.put_along_axis(out, order, given, 0)
    return out


def lindley(
    start: np.ndarray, work: np.ndarray, blocks: np.ndarray, width: float
) -> np.ndarray:  # fmt: skip
    """Backlog at the end of every bin of a slice with a constant rate.

    Lindley's recursion solved by a running minimum. In bins of a TTI (or finer), what comes in a
    bin is served from the next one on, as a scheduler does:
    ``W_t = max(0, W_{t-1} - blocks * width) + work_t``; in coarser bins from the same one on:
    ``W_t = max(0, W_{t-1} + work_t - blocks * width)``.

    Args:
        start: ``(batch,)`` work waiting.
        work: ``(batch, bins)`` work that comes in each bin.
        blocks: ``(batch,)`` resource blocks.
        width: ms of a bin.

    Returns:
        ``(batch, bins)``.
    """
    path = np.empty_like(work)
    if width > 1:
        path[:] = work
        path[:, 0] += start
    else:
        path[:, 0] = start
        path[:, 1:] = work[:, :-1]
    path -= (blocks * work.dtype.type(width))[:, None]
    np.cumsum(path, axis=1, out=path)
    low = np.minimum.accumulate(path, axis=1)
    np.minimum(low, 0, out=low)
    path -= low
    if width <= 1:
        path += work
    return path


def delays(
    work: np.ndarray, backlog: np.ndarray, blocks: np.ndarray, width: float, fixed: float
) -> tuple[np.ndarray, np.ndarray]:
    """Delays of the first and the last packet that come in each bin, ``(batch, bins)`` ms.

    Fixed + backlog / rate: half a TTI to the next boundary on average, then what is ahead at the
    slice's rate, a TTI at least; a bin's last packet has all of the bin's work ahead.
    """
    per = 1 / np.maximum(blocks, 1e-9)[:, None]
    last = backlog * per
    first = np.maximum(backlog - work, 0)
    first *= per
    return _whole(first, width, fixed), _whole(last, width, fixed)


def _whole(wait: np.ndarray, width: float, fixed: float) -> np.ndarray:
    """From the time that what is ahead takes to a delay, in place."""
    if width > 1:
        # What came in a coarse bin came half of it before its end, where backlog is known.
        wait += (0.5 * width) * (wait > 0)
    np.maximum(wait, 1.0, out=wait)
    wait += 0.5 + fixed
    return wait


@dataclasses.dataclass
class Steps:
    """What stepping brought.

    Attributes:
        granted, dropped: ``(u, batch)`` work.
        given: ``(steps, u, batch)`` work granted in each step.
        waiting: ``(steps + 1, u, batch)`` work at the ends of steps, and before the first.
        lost: ``(steps, u, batch)`` share of a step's arrivals that were dropped, or None.
    """

    granted: np.ndarray
    dropped: np.ndarray
    given: np.ndarray
    waiting: np.ndarray
    lost: np.ndarray | None


def step_users(
    work: np.ndarray, coming: np.ndarray, capacity: np.ndarray, carries: np.ndarray,
    most: np.ndarray, average: np.ndarray, scheduler: str,
) -> Steps:  # fmt: skip
    """Step every user's own queue through a period under a scheduler, `STEP` ms at a time.

    Args:
        work: ``(u, batch)`` waiting.
        coming: ``(steps, u, batch)`` work that comes.
        capacity: ``(steps, batch)`` work the slice can do in each step.
        carries: ``(u, batch)`` bytes per unit of work.
        most: ``(u, batch)`` work a queue holds; beyond it is lost.
        average: ``(u, batch)`` proportional fair's memory of rates, changed in place.
        scheduler: ``"rr"`` and ``"wf"`` (the same in a fluid), ``"softmax"`` or ``"pf"``.
    """
    steps = len(coming)
    tight = (work + coming.sum(0) > most).any()
    dropped, work = np.zeros_like(work), work.copy()
    waiting = np.empty((steps + 1, *work.shape), coming.dtype)
    waiting[0] = work
    grants = np.empty_like(coming)
    lost = np.zeros_like(coming) if tight else None
    for j in range(steps):
        work += coming[j]
        if scheduler == "softmax":
            grants[j] = softmax_fill(work, capacity[j], STEP)
        elif scheduler == "pf":
            grants[j] = fair_fill(work, capacity[j], carries, average)
            average += (STEP / 50.0) * (grants[j] * carries / STEP - average)
        else:
            share_equally(work, capacity[j], grants[j])
        work -= grants[j]
        if lost is not None:
            # A full queue turns away what comes, not what waits.
            over = work - most
            np.maximum(over, 0, out=over)
            dropped += over
            work -= over
            np.minimum(over / np.maximum(coming[j], 1e-9), 1, out=lost[j])
        waiting[j + 1] = work
    return Steps(grants.sum(0), dropped, grants, waiting, lost)


def departures(
    x: Steps, cell: np.ndarray, step: np.ndarray, blocks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """When the first and the last of what comes in busy steps has been served, ms in the period.

    What a user has been given by time t is known at the ends of steps and grows evenly while the
    slice works; a packet leaves when that reaches what had come before it. What is left at the end
    of the period is cleared max-min, in ``sum_v min(w_v, w_u) / blocks``, or half way
    between that and the user's rate of this period where the slice was busy throughout.

    Args:
        x: the steps.
        cell: ``(windows,)`` column of each busy step.
        step: ``(windows,)`` its number.
        blocks: ``(batch,)`` resource blocks.

    Returns:
        Two arrays ``(u, windows)``.
    """
    steps = len(x.given)
    done = np.zeros_like(x.waiting)
    np.cumsum(x.given, axis=0, out=done[1:])
    curve = done[:, :, cell]
    # In a step it can finish, a slice that had a queue works first, one that had none works last.
    capacity = np.maximum(blocks, 1e-9) * done.dtype.type(STEP)
    busy = np.minimum(x.given.sum(1) / capacity, 1)
    begins = np.where(x.waiting[:-1].sum(1) > 1e-6, 0, 1 - busy)
    resting = busy.min(0) < 0.999
    user = np.arange(curve.shape[1])[:, None]
    window = np.arange(len(cell))

    def leaves(reach: np.ndarray) -> np.ndarray:
        ends = np.zeros(reach.shape, np.int8)
        short = reach - 1e-4
        for j in range(1, steps + 1):
            ends += (curve[j] < short).view(np.int8)
        inside = np.minimum(ends, steps - 1).astype(np.intp)
        low, high = curve[inside, user, window], curve[inside + 1, user, window]
        part = np.clip((reach - low) / np.maximum(high - low, 1e-6), 0, 1)
        at = (inside + begins[inside, cell] + part * busy[inside, cell]) * STEP
        row, column = np.nonzero(ends == steps)
        if row.size:
            left = reach[row, column] - curve[steps, row, column]
            level = np.zeros_like(left)
            for other in x.waiting[-1]:
                level += np.minimum(other[cell[column]], left)
            clear = level / np.maximum(blocks[cell[column]], 1e-9)
            # That is a lower bound: others may get more to send. Where the slice never rested, the
            # user's rate of this period is an upper one, and the middle of the two is taken.
            where = cell[column]
            rate = x.given[:, row, where].mean(0) / STEP
            upper = np.maximum(left / np.maximum(rate, 1e-6), clear)
            clear = np.where(resting[where], clear, 0.5 * (clear + upper))
            at[row, column] = steps * STEP + clear
        return at

    ahead = x.waiting[step, :, cell].T
    first = leaves(curve[step, user, window] + ahead)
    last = leaves(curve[step + 1, user, window] + x.waiting[step + 1, :, cell].T)
    # Behind an empty queue the first packet starts when the slice does.
    fresh = (step + begins[step, cell]) * STEP
    return np.where(ahead > 1e-6, first, np.minimum(fresh, last)), last


def window_delays(
    first: np.ndarray, last: np.ndarray, step: np.ndarray, coming: np.ndarray, width: float,
    fixed: float,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Delays of the first and last packet of every user in every bin of busy steps.

    Args:
        first: ``(u, windows)`` departures of the first of what comes in the step.
        last: the same of the last.
        step: ``(windows,)`` which step of the period.
        coming: ``(u, windows, bins)`` work that comes.
        width: ms of a bin.
        fixed: ms added to every delay.

    Returns:
        Two arrays ``(u, windows, bins)`` in ms.
    """
    held = np.cumsum(coming, axis=2)
    slope = (last - first) / np.maximum(held[:, :, -1], 1e-6)
    arrival = (step[:, None] * STEP + (np.arange(coming.shape[2]) + 1) * width).astype(coming.dtype)
    if width > 1:
        arrival -= 0.5 * width
    ends = []
    for reach in (held - coming, held):
        reach *= slope[:, :, None]
        reach += first[:, :, None]
        reach -= arrival
        np.maximum(reach, 1.0, out=reach)
        reach += 0.5 + fixed
        ends.append(reach)
    return ends[0], ends[1]


def late_packets(
    first: np.ndarray, last: np.ndarray, count: np.ndarray, target: float
) -> np.ndarray:
    """Packets later than a target, by row: a bin's packets lie evenly between first and last."""
    if not (last > target).any():
        return np.zeros(len(last), count.dtype)
    share = (last - target) / np.maximum(last - first, 1e-3)
    np.clip(share, 0, 1, out=share)
    share *= count
    return share.sum(-1)


def share_equally(need: np.ndarray, capacity: np.ndarray, out: np.ndarray) -> None:
    """Equal shares among who waits, what they leave in proportion to what others still need.

    Spends ``min(capacity, sum of need)`` exactly; max-min up to the second round.
    """
    waiting = np.count_nonzero(need, axis=0)
    share = capacity / np.maximum(waiting, 1)
    np.minimum(need, share, out=out)
    rest = need - out
    lacking = rest.sum(0)
    spare = capacity - out.sum(0)
    spare /= np.maximum(lacking, 1e-9)
    rest *= np.minimum(spare, 1, out=spare)
    out += rest


def histogram(first: np.ndarray, last: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Packets by delay, ``(batch, CELLS)``: logarithmic bins of a sixteenth of a doubling."""
    out = np.zeros((len(first), CELLS))
    offset = np.arange(len(first))[:, None] * CELLS
    for k in range(PARTS):
        delay = first + (last - first) * ((k + 0.5) / PARTS)
        index = np.clip(((np.log2(delay) + 2) * GRID).astype(np.int64), 0, CELLS - 1) + offset
        summed = np.bincount(index.ravel(), count.ravel(), minlength=out.size)
        out += summed.reshape(out.shape) / PARTS
    return out


def quantile(counts: np.ndarray, q: float) -> float:
    """Quantile of pooled delays in ms, interpolated within a bin; NaN without packets."""
    total = counts.sum()
    if total <= 0:
        return float("nan")
    cumulative = np.cumsum(counts)
    k = int(np.searchsorted(cumulative, q * total))
    before = cumulative[k - 1] if k else 0.0
    inside = (q * total - before) / max(counts[k], 1e-12)
    return float(2.0 ** ((k + inside) / GRID - 2))
