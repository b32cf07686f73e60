"""The rules of packing, compiled, in one place: environments and searches call these."""

from __future__ import annotations

import numpy as np

from allocgym.envs.core.kernels import kernel


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
