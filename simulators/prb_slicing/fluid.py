"""The fluid model of a period: queues as work, service as a rate. Pure functions, claimant-first.

Work is bytes over what one block carries in a millisecond. With a constant number of blocks the
backlog of a slice has a closed form over the whole period (Lindley's recursion as a running
minimum), so a period costs a handful of passes over ``(batch, bins)`` instead of a loop.
"""

from __future__ import annotations

import math

import numpy as np

from allocgym.envs.core.arrays import total
from allocgym.envs.core.kernels import kernel

GRID = 16
"""Histogram bins for each doubling of the delay."""
PARTS = 4
"""Parts into which a bin's packets are divided for histograms."""
STEP = 10.0
"""Ms between the steps at which single users are followed."""
CELLS = 256
"""Histogram bins in all: 2 ** (-2) to 2 ** 14 ms."""


def water_fill(need: np.ndarray, capacity: np.ndarray) -> np.ndarray:
    """Max-min fair split: ``min(need, level)`` with the level that spends the capacity.

    Args:
        need: ``(u, batch)``, non-negative.
        capacity: ``(batch,)``, non-negative.

    Returns:
        ``(u, batch)``, at most ``need``; columns sum to ``min(capacity, sum of need)``.
    """
    short = total(need) > capacity
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
    share = weight / np.maximum(total(weight), 1e-30)
    first = np.minimum(need, share * capacity)
    rest = np.maximum(capacity - total(first), 0)
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


def lindley(start: np.ndarray, work: np.ndarray, blocks: np.ndarray, width: float) -> np.ndarray:
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
    backlog = np.empty_like(work)
    _recur(start, work, blocks, width, backlog)
    return backlog


@kernel
def _recur(
    start: np.ndarray, work: np.ndarray, blocks: np.ndarray, width: float, backlog: np.ndarray
) -> None:
    batch, bins = work.shape
    for i in range(batch):
        waiting = np.float64(start[i])
        for t in range(bins):
            if width > 1:
                waiting = max(waiting + work[i, t] - blocks[i] * width, 0.0)
            else:
                waiting = max(waiting - blocks[i] * width, 0.0) + work[i, t]
            backlog[i, t] = waiting


@kernel
def gather(
    coming: np.ndarray,
    number: np.ndarray,
    work: np.ndarray,
    count: np.ndarray,
    in_steps: np.ndarray,
) -> None:
    """Sum arrivals over users and over bins of a step.

    Args:
        coming: ``(u, batch, bins)`` work.
        number: ``(u, batch, bins)`` packets.
        work: ``(batch, bins)``, filled, as are the next ones.
        count: ``(batch, bins)`` packets.
        in_steps: ``(u, batch, steps)`` work.
    """
    users, batch, bins = coming.shape
    fine = bins // in_steps.shape[2]
    work[:] = 0
    count[:] = 0
    in_steps[:] = 0
    for v in range(users):
        for i in range(batch):
            for t in range(bins):
                work[i, t] += coming[v, i, t]
                count[i, t] += number[v, i, t]
            for j in range(in_steps.shape[2]):
                for t in range(j * fine, (j + 1) * fine):
                    in_steps[v, i, j] += coming[v, i, t]


@kernel
def enter(
    work: np.ndarray,
    backlog: np.ndarray,
    count: np.ndarray,
    blocks: np.ndarray,
    width: float,
    fixed: float,
    target: float,
    late: np.ndarray,
    late50: np.ndarray,
    delay: np.ndarray,
    histogram: np.ndarray,
) -> None:
    """Enter the packets of every bin by the slice's backlog, fixed + backlog / rate.

    Half a TTI to the next boundary on average, then what is ahead at the slice's rate, a TTI at
    least; a bin's first packet has what waited before the bin ahead, its last one all of the bin's
    work too.

    Args:
        work: ``(batch, bins)`` that comes.
        backlog: ``(batch, bins)`` at the ends of bins.
        count: ``(batch, bins)`` packets that come.
        blocks: ``(batch,)``.
        width: ms of a bin.
        fixed: ms added to every delay.
        target: delay target in ms.
        late: ``(batch,)`` packets later than the target; added to, as are the next ones.
        late50: ``(batch,)`` the same for 50 ms.
        delay: ``(batch,)`` sum of delays.
        histogram: ``(batch, CELLS)``, or ``(0, CELLS)``: none is kept.
    """
    for i in range(len(work)):
        per = 1 / max(blocks[i], 1e-9)
        for t in range(work.shape[1]):
            if count[i, t] == 0:
                continue
            first = _whole(max(backlog[i, t] - work[i, t], 0.0) * per, width) + fixed
            last = _whole(backlog[i, t] * per, width) + fixed
            late[i] += count[i, t] * late_share(first, last, target)
            late50[i] += count[i, t] * late_share(first, last, 50.0)
            delay[i] += 0.5 * (first + last) * count[i, t]
            if len(histogram):
                tally(histogram[i], first, last, count[i, t])


@kernel
def _whole(wait: float, width: float) -> float:
    """From the time that what is ahead takes to a delay."""
    if width > 1 and wait > 0:
        # What came in a coarse bin came half of it before its end, where backlog is known.
        wait += 0.5 * width
    return max(wait, 1.0) + 0.5


@kernel
def late_share(first: float, last: float, target: float) -> float:
    """Share of a bin's packets later than a target: they lie evenly between first and last."""
    return min(max((last - target) / max(last - first, 1e-3), 0.0), 1.0)


@kernel
def late_packets(
    first: np.ndarray, last: np.ndarray, count: np.ndarray, target: float
) -> np.ndarray:
    """Packets later than a target, by row of ``(batch, bins)`` arrays."""
    late = np.zeros(len(last))
    for i in range(len(last)):
        for t in range(last.shape[1]):
            late[i] += count[i, t] * late_share(first[i, t], last[i, t], target)
    return late


@kernel
def tally(counts: np.ndarray, first: float, last: float, packets: float) -> None:
    """Enter packets that lie evenly between two delays into ``(CELLS,)`` logarithmic bins."""
    for k in range(PARTS):
        delay = first + (last - first) * ((k + 0.5) / PARTS)
        place = int((math.log2(delay) + 2) * GRID)
        counts[min(max(place, 0), CELLS - 1)] += packets / PARTS


def histogram(first: np.ndarray, last: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Packets by delay, ``(batch, CELLS)``: logarithmic bins of a sixteenth of a doubling."""
    out = np.zeros((len(first), CELLS))
    _tally_rows(first, last, count, out)
    return out


@kernel
def _tally_rows(first: np.ndarray, last: np.ndarray, count: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(first)):
        for t in range(first.shape[1]):
            tally(out[i], first[i, t], last[i, t], count[i, t])


def quantile(counts: np.ndarray, q: float) -> float:
    """Quantile of pooled delays in ms, interpolated within a bin; NaN without packets."""
    whole = counts.sum()
    if whole <= 0:
        return float("nan")
    cumulative = np.cumsum(counts)
    k = int(np.searchsorted(cumulative, q * whole))
    before = cumulative[k - 1] if k else 0.0
    inside = (q * whole - before) / max(counts[k], 1e-12)
    return float(2.0 ** ((k + inside) / GRID - 2))
