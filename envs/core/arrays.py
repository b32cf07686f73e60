"""The two array conventions of the package, in one place.

*Layout.* Public arrays carry the batch first, ``(batch, n, ...)``. Inside, arithmetic runs
claimant-first, ``(n, batch)``: reductions over claimants then walk long contiguous rows, which
is two to four times faster at a thousand environments.

*Namespace.* Dynamics and encoders are written once for NumPy arrays and for torch tensors, so
that the simulator a policy is scored in is also the one gradients flow through. Nothing here
imports torch: if a tensor arrives, its module is loaded already.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any
"""A NumPy array, or a torch tensor where a function says it accepts both."""


def namespace(array: Array) -> Any:
    """Return the module whose functions act on ``array``: ``numpy`` or ``torch``."""
    if isinstance(array, (np.ndarray, np.generic, float, int)):
        return np
    return sys.modules["torch"]


def columns(array: Array) -> Array:
    """View ``(batch, n)`` as ``(n, batch)``, or back. No copy."""
    return array.T


def total(array: Array, axis: int = 0) -> Array:
    """Sum over claimants in their order, whatever the batch.

    NumPy sums a lone column pairwise and many columns row by row; the two round differently, and a
    scalar environment must equal its twin in a batch bit for bit.
    """
    if isinstance(array, np.ndarray) and array.shape[-1] == 1:
        return np.add.accumulate(array, axis=axis).take(-1, axis=axis)
    return array.sum(axis)


def row_total(array: np.ndarray) -> np.ndarray:
    """Sum each row of ``(batch, n)`` in the order of its columns, whatever the batch and the layout."""
    return np.asarray(total(np.ascontiguousarray(columns(array))))
