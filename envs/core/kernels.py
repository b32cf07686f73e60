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
from filelock import FileLock
from numba.extending import register_jitable

from allocgym.envs.core.cache import cache_folder
from allocgym.envs.core.errors import WriteError


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a loop over arrays on its first call, for each combination of dtypes and layouts."""
    try:
        return _shared(_compiled(function, cache=True))
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
    settings: Any = numba.config
    before = settings.CACHE_DIR
    try:
        settings.CACHE_DIR = str(cache_folder() / "numba")
        return _shared(_compiled(function, cache=True))
    except (RuntimeError, WriteError):
        return _compiled(function, cache=False)
    finally:
        settings.CACHE_DIR = before


def _compiled(function: Callable[..., Any], cache: bool) -> Any:
    return numba.njit(cache=cache, error_model="numpy")(function)


def _shared(dispatcher: Any) -> Any:
    """Let one process at a time write to a kernel's cache.

    Numba numbers its files by what its index lists; two processes that compile the same loop for
    different dtypes at the same moment would write one file under both, and whoever reads it crashes.
    """
    store = dispatcher._cache
    save, folder = store.save_overload, store.cache_path

    def save_alone(*args: Any) -> None:
        with FileLock(f"{folder}/.{dispatcher.__name__}.lock"):
            save(*args)

    store.save_overload = save_alone
    return dispatcher


def formula(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark arithmetic that kernels may call; anybody else calls it as it stands."""
    inlined: Callable[..., Any] = register_jitable(function)
    return inlined
