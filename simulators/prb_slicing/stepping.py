"""Busy cells, user by user: queues stepped through a period, packets followed to their departure."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.arrays import total
from allocgym.envs.core.kernels import kernel
from allocgym.simulators.prb_slicing.fluid import STEP, fair_fill, late_share, softmax_fill, tally


@dataclasses.dataclass
class Steps:
    """What stepping brought.

    Attributes:
        granted, dropped: ``(u, batch)`` work.
        given: ``(steps, u, batch)`` work granted in each step.
        waiting: ``(steps + 1, u, batch)`` work at the ends of steps, and before the first.
        lost: ``(steps, u, batch)`` share of a step's arrivals that were dropped.
    """

    granted: np.ndarray
    dropped: np.ndarray
    given: np.ndarray
    waiting: np.ndarray
    lost: np.ndarray


def step_users(
    work: np.ndarray,
    coming: np.ndarray,
    capacity: np.ndarray,
    carries: np.ndarray,
    most: np.ndarray,
    average: np.ndarray,
    scheduler: str,
) -> Steps:
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
    dropped, work = np.zeros_like(work), work.copy()
    waiting = np.empty((steps + 1, *work.shape), coming.dtype)
    waiting[0] = work
    given, lost = np.empty_like(coming), np.empty_like(coming)
    for j in range(steps):
        work += coming[j]
        if scheduler == "softmax":
            given[j] = softmax_fill(work, capacity[j], STEP)
        elif scheduler == "pf":
            given[j] = fair_fill(work, capacity[j], carries, average)
            average += (STEP / 50.0) * (given[j] * carries / STEP - average)
        else:
            share_equally(work, capacity[j], given[j])
        _serve(work, given[j], coming[j], most, dropped, lost[j])
        waiting[j + 1] = work
    return Steps(total(given), dropped, given, waiting, lost)


@kernel
def share_equally(need: np.ndarray, capacity: np.ndarray, out: np.ndarray) -> None:
    """Equal shares among who waits, what they leave in proportion to what others still need.

    Spends ``min(capacity, sum of need)`` exactly; max-min up to the second round. Arrays
    ``(u, batch)``, ``capacity`` ``(batch,)``.
    """
    users, batch = need.shape
    for i in range(batch):
        waiting = 0
        for v in range(users):
            # What rounding left of a queue is not one.
            waiting += need[v, i] > 1e-6
        share = capacity[i] / max(waiting, 1)
        lacking, spare = 0.0, capacity[i]
        for v in range(users):
            out[v, i] = min(need[v, i], share)
            lacking += need[v, i] - out[v, i]
            spare -= out[v, i]
        spare = min(spare / max(lacking, 1e-9), 1.0)
        for v in range(users):
            out[v, i] += (need[v, i] - out[v, i]) * spare


@kernel
def _serve(
    work: np.ndarray,
    given: np.ndarray,
    coming: np.ndarray,
    most: np.ndarray,
    dropped: np.ndarray,
    lost: np.ndarray,
) -> None:
    """Take what was given from the queues; a full one turns away what comes, not what waits."""
    users, batch = work.shape
    for v in range(users):
        for i in range(batch):
            work[v, i] -= given[v, i]
            over = max(work[v, i] - most[v, i], 0.0)
            dropped[v, i] += over
            work[v, i] -= over
            lost[v, i] = min(over / max(coming[v, i], 1e-9), 1.0)


@kernel
def follow(
    given: np.ndarray,
    waiting: np.ndarray,
    lost: np.ndarray,
    columns: np.ndarray,
    peak: np.ndarray,
    tight: np.ndarray,
    blocks: np.ndarray,
    coming: np.ndarray,
    number: np.ndarray,
    width: float,
    fixed: float,
    target: float,
    count: np.ndarray,
    late: np.ndarray,
    late50: np.ndarray,
    delay: np.ndarray,
    missing: np.ndarray,
    histogram: np.ndarray,
) -> None:
    """Enter the packets of busy steps user by user, and take them out of ``count``.

    What a user has been given by time t is known at the ends of steps and grows evenly while the
    slice works; a packet leaves when that reaches what had come before it. What is left at the end
    of the period is cleared max-min, in ``sum_v min(w_v, w_u) / blocks``, or half way
    between that and the user's rate of this period where the slice was busy throughout.

    Args:
        given: ``(steps, u, cells)`` work granted in each step.
        waiting: ``(steps + 1, u, cells)`` work at the ends of steps, and before the first.
        lost: ``(steps, u, cells)`` share of a step's arrivals that were dropped.
        columns: ``(cells,)`` where each cell is in the batch.
        peak: ``(cells, steps)`` longest queue of each step.
        tight: ``(cells,)`` a step with a longer queue than this is busy.
        blocks: ``(cells,)`` resource blocks.
        coming: ``(u, batch, bins)`` work that comes.
        number: ``(u, batch, bins)`` packets that come.
        width: ms of a bin.
        fixed: ms added to every delay.
        target: delay target in ms.
        count: ``(batch, bins)`` packets still to be entered; changed.
        late: ``(batch,)`` packets later than the target; added to, as are the next ones.
        late50: ``(batch,)`` the same for 50 ms.
        delay: ``(batch,)`` sum of delays.
        missing: ``(batch,)`` packets dropped.
        histogram: ``(batch, CELLS)``, or ``(0, CELLS)``: none is kept.
    """
    steps, users, cells = given.shape
    fine = coming.shape[2] // steps
    curve = np.zeros((users, steps + 1), given.dtype)
    begins, busy, rate = np.zeros(steps), np.zeros(steps), np.zeros(users)
    for c in range(cells):
        any_busy = False
        for j in range(steps):
            any_busy |= peak[c, j] > tight[c]
        if not any_busy:
            continue
        for v in range(users):
            for j in range(steps):
                curve[v, j + 1] = curve[v, j] + given[j, v, c]
            rate[v] = curve[v, steps] / (steps * STEP)
        # In a step it can finish, a slice that had a queue works first, one that had none works last.
        room = max(blocks[c], 1e-9) * STEP
        rested = False
        for j in range(steps):
            work = queue = 0.0
            for v in range(users):
                work += given[j, v, c]
                queue += waiting[j, v, c]
            busy[j] = min(work / room, 1.0)
            begins[j] = 0.0 if queue > 1e-6 else 1 - busy[j]
            rested |= busy[j] < 0.999
        i = columns[c]
        for j in range(steps):
            if peak[c, j] <= tight[c]:
                continue
            for k in range(j * fine, (j + 1) * fine):
                count[i, k] = 0
            for v in range(users):
                ahead = waiting[j, v, c]
                last = _leaves(
                    curve[v],
                    curve[v, j + 1] + waiting[j + 1, v, c],
                    begins,
                    busy,
                    waiting[steps, :, c],
                    blocks[c],
                    rate[v],
                    rested,
                )
                if ahead > 1e-6:
                    first = _leaves(
                        curve[v],
                        curve[v, j] + ahead,
                        begins,
                        busy,
                        waiting[steps, :, c],
                        blocks[c],
                        rate[v],
                        rested,
                    )
                else:
                    # Behind an empty queue the first packet starts when the slice does.
                    first = min((j + begins[j]) * STEP, last)
                every = 0.0
                for k in range(j * fine, (j + 1) * fine):
                    every += coming[v, i, k]
                slope = (last - first) / max(every, 1e-6)
                held = 0.0
                for k in range(j * fine, (j + 1) * fine):
                    come = (k + 1) * width - (0.5 * width if width > 1 else 0.0)
                    early = max(first + held * slope - come, 1.0) + 0.5 + fixed
                    held += coming[v, i, k]
                    if number[v, i, k] == 0:
                        continue
                    end = max(first + held * slope - come, 1.0) + 0.5 + fixed
                    gone = number[v, i, k] * lost[j, v, c]
                    packets = number[v, i, k] - gone
                    missing[i] += gone
                    late[i] += packets * late_share(early, end, target)
                    late50[i] += packets * late_share(early, end, 50.0)
                    delay[i] += 0.5 * (early + end) * packets
                    if len(histogram):
                        tally(histogram[i], early, end, packets)


@kernel
def _leaves(
    curve: np.ndarray,
    reach: float,
    begins: np.ndarray,
    busy: np.ndarray,
    left: np.ndarray,
    blocks: float,
    rate: float,
    rested: bool,
) -> float:
    """When a user's service, ``curve (steps + 1,)``, reaches ``reach``: ms in the period."""
    steps = len(begins)
    ends = 0
    while ends < steps and curve[ends + 1] < reach - 1e-4:
        ends += 1
    if ends < steps:
        part = (reach - curve[ends]) / max(curve[ends + 1] - curve[ends], 1e-6)
        return (ends + begins[ends] + min(max(part, 0.0), 1.0) * busy[ends]) * STEP
    rest = reach - curve[steps]
    level = 0.0
    for other in left:
        level += min(other, rest)
    clear = level / max(blocks, 1e-9)
    if not rested:
        # That is a lower bound: others may get more to send. Where the slice never rested, the
        # user's rate of this period is an upper one, and the middle of the two is taken.
        clear = 0.5 * (clear + max(rest / max(rate, 1e-6), clear))
    return steps * STEP + clear
