"""Reading what anybody may have written: whatever is wrong with it is one kind of error."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError


def loads(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: it is none, no UTF-8, nested too deeply, or has a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def numbers(
    name: str, given: Any, shape: tuple[int, ...], low: float = -np.inf, high: float = np.inf
) -> np.ndarray:
    """Read numbers of a known shape, all finite.

    Args:
        name: of the argument, for the error.
        given: a number, or sequences of numbers.
        shape: expected.
        low: least value.
        high: largest value.

    Returns:
        float64, of that shape.

    Raises:
        AllocgymError: anything else.
    """
    try:
        found = np.asarray(given, float)
    except (TypeError, ValueError, OverflowError):
        found = np.full(1, np.nan)
    within = found.shape == shape and np.isfinite(found).all()
    if not within or (found < low).any() or (found > high).any():
        many = " x ".join(map(str, shape)) or "one"
        range_ = f" from {low:g} to {high:g}" if np.isfinite([low, high]).any() else ""
        shown = f"{len(given)} values" if isinstance(given, (list, tuple)) else repr(given)[:40]
        raise AllocgymError(f"{name}: {many} finite number(s){range_} expected, given {shown}")
    return found
