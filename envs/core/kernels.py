"""Compiled loops.

NumPy walks over a batch once per operation; where an environment's step is hundreds of small ones,
that walking is the step. A loop compiled by Numba does it in one pass. Formulas stay ordinary
functions of numbers or arrays (``formula``), so that a compiled loop, NumPy and torch share them.

Compiled code is cached on disk beside its module, where that can be written, else in the user's own
cache folder, and is refreshed when the module's file changes: a formula and the kernels that use it
belong in one file. Where nothing can be written it is compiled in every process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.extending import register_jitable

from allocgym.envs.core.cache import cache_folder
from allocgym.envs.core.errors import WriteError


def cached(compiling: Callable[..., Callable[..., Any]], *args: Any, **options: Any) -> Any:
    """Make one of Numba's decorators keep what it compiles, wherever that can be kept.

    Args:
        compiling: `numba.njit`, `numba.vectorize` or `numba.guvectorize`.
        args: of it.
        options: of it.

    Returns:
        A decorator.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return compiling(*args, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
        before = numba.config.CACHE_DIR
        try:
            numba.config.CACHE_DIR = str(cache_folder() / "numba")
            return compiling(*args, cache=True, **options)(function)
        except (RuntimeError, WriteError):
            return compiling(*args, **options)(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop over arrays on its first call, for each combination of dtypes and layouts."""
    return cached(numba.njit, error_model="numpy")(function)


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark arithmetic that kernels may call; anybody else calls it as it stands."""
    inlined: Callable[..., Any] = register_jitable(function)
    return inlined
