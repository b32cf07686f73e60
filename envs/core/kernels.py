"""Compiled loops.

NumPy walks over a batch once per operation; where an environment's step is hundreds of small ones,
that walking is the step. A loop compiled by Numba does it in one pass. Formulas stay ordinary
functions of numbers or arrays (``formula``), so that a compiled loop, NumPy and torch share them.

Compiled code is cached on disk beside its module, and the cache is refreshed when that file changes:
a formula and the kernels that use it belong in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.extending import register_jitable


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop over arrays on its first call, for each combination of dtypes and layouts."""
    return numba.njit(cache=True, error_model="numpy")(function)


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark arithmetic that kernels may call; anybody else calls it as it stands."""
    inlined: Callable[..., Any] = register_jitable(function)
    return inlined
