"""Orders of placement: every rule is one, a compiled climb looks for a better one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from allocgym.envs.core.kernels import kernel
from allocgym.envs.packing.buffer import Buffers
from allocgym.envs.packing.kernel import place

TRAITS = (
    "log size",
    "log lifetime",
    "log area",
    "contention",
    "birth",
    "neighbours",
    "pressure beside",
)


def traits(b: Buffers) -> np.ndarray:
    """``(n, len(TRAITS))`` standardised descriptions of every buffer."""
    life = (b.upper - b.lower).astype(float)
    beside = (b.lower[:, None] < b.upper) & (b.lower < b.upper[:, None])
    table = np.stack(
        [
            np.log(b.size),
            np.log(life),
            np.log(b.size * life),
            b.contention / b.capacity,
            b.lower,
            beside.mean(1),
            np.log(beside @ (b.size * life)),
        ],
        1,
    )
    spread = table.std(0)
    found: np.ndarray = (table - table.mean(0)) / np.where(spread > 1e-9, spread, 1)
    return found


ORDERS: dict[str, Callable[[Buffers], np.ndarray]] = {
    "program": lambda b: np.lexsort((b.upper, b.lower)),
    "size": lambda b: np.lexsort((b.lower, -b.size)),
    "lifetime": lambda b: np.lexsort((-b.size, b.lower - b.upper)),
    "area": lambda b: np.argsort(-(b.upper - b.lower) * b.size, kind="stable"),
    "contention": lambda b: np.lexsort((-(b.upper - b.lower) * b.size, -b.contention)),
}
"""Size is the rule of TFLite and TVM; lifetime, area and contention sort as MiniMalloc's W, A, T do."""


def offsets(b: Buffers, order: np.ndarray) -> np.ndarray:
    """Place buffers in an order; return ``(n,)`` offsets."""
    at, stack = np.zeros(len(b.size), np.int64), np.zeros(len(b.size), np.int64)
    place(np.asarray(order, np.int64), b.lower, b.upper, b.size, at, stack)
    return at


def height(b: Buffers, order: np.ndarray) -> int:
    """Bytes reached by placing buffers in an order."""
    return int((offsets(b, order) + b.size).max())


@kernel
def _energy(
    order: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    capacity: int,
    at: np.ndarray,
    stack: np.ndarray,
) -> float:
    """Height, and (far behind it) the bytes that lie above the capacity."""
    height = place(order, lower, upper, size, at, stack)
    over = 0.0
    for b in range(len(size)):
        over += max(at[b] + size[b] - capacity, 0)
    return height + 1e-3 * over / len(size)


@kernel
def _climb(
    order: np.ndarray,
    best: float,
    drawn: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    capacity: int,
    at: np.ndarray,
    stack: np.ndarray,
) -> float:
    """Try ``len(drawn)`` moves on ``order`` in place; keep what is not worse."""
    n = len(order)
    trial = order.copy()
    height = place(order, lower, upper, size, at, stack)
    for k in range(len(drawn)):
        i, j = int(drawn[k, 0] * n), int(drawn[k, 1] * n)
        if drawn[k, 2] < 0.5:  # a buffer at the top goes earlier
            start = i
            for step in range(n):
                i = (start + step) % n
                b = order[i]
                if at[b] + size[b] >= min(height, capacity + 1):
                    break
            j = int(drawn[k, 1] * (i + 1))
        if drawn[k, 2] < 0.25 or drawn[k, 2] > 0.75:
            trial[i], trial[j] = trial[j], trial[i]
        else:
            b = trial[i]
            if i < j:
                trial[i:j] = trial[i + 1 : j + 1].copy()
            else:
                trial[j + 1 : i + 1] = trial[j:i].copy()
            trial[j] = b
        got = _energy(trial, lower, upper, size, capacity, at, stack)
        if got <= best:
            best = got
            order[:] = trial
        else:
            trial[:] = order
            place(order, lower, upper, size, at, stack)
        height = 0
        for b in range(n):
            height = max(height, at[b] + size[b])
        if height <= capacity:
            return best
    return best


def climb(
    b: Buffers, starts: Sequence[np.ndarray], seconds: float, seed: int = 0, moves: int = 10**9
) -> tuple[np.ndarray, int]:
    """Hill-climb over orders from the best of some, until it fits or the time is over.

    Moves: a buffer elsewhere, two swapped; half of them take a buffer that reaches the top (or above
    the capacity) and place it earlier.

    Args:
        b: what is packed.
        starts: orders.
        seconds: CPU time.
        seed: of the moves.
        moves: at most.

    Returns:
        The best order and the moves tried.
    """
    begun = time.process_time()
    rng = np.random.default_rng(seed)
    at, stack = np.zeros(len(b.size), np.int64), np.zeros(len(b.size), np.int64)
    work = b.lower, b.upper, b.size, b.capacity, at, stack
    scored = [(_energy(o.astype(np.int64), *work), i) for i, o in enumerate(starts)]
    best, which = min(scored)
    order = starts[which].astype(np.int64)
    tried = 0
    chunk = 64
    while best > b.capacity and tried < moves and time.process_time() - begun < seconds:
        drawn = rng.random((min(chunk, moves - tried), 3))
        best = _climb(order, best, drawn, *work)
        tried += len(drawn)
    return order, tried
