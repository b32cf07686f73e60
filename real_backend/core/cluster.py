"""The Ray cluster of this process: joined at an address, or started on this machine.

A cluster whose nodes do not have this package gets it from a wheel: `wheel_environment`, or the
environment variable ``ALLOCGYM_WHEEL`` for any command.
"""

from __future__ import annotations

import atexit
import email.parser
import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allocgym.envs.core.errors import AllocgymError, missing_extra

PASSED_ON = ("ALLOCGYM_DATA", "ALLOCGYM_CACHE", "OMP_NUM_THREADS")
"""Environment variables that workers get as this process has them."""
WHEEL, WHEEL_ONLY = "ALLOCGYM_WHEEL", "ALLOCGYM_WHEEL_ONLY"
"""A wheel for the workers; whether their nodes have what it depends on (any value but empty)."""


def connect(address: str | None = None, environment: dict[str, Any] | None = None) -> Any:
    """Connect to a Ray cluster, or start one on this machine; return the module ``ray``.

    Workers get the folder of public data and the thread count of this process.

    Args:
        address: of a running cluster (``"auto"``, ``"ray://..."``), or None: one on this machine, or
            the one this process is connected to already.
        environment: a Ray ``runtime_env`` for the workers; by default one that brings the wheel that
            ``ALLOCGYM_WHEEL`` names, where it is set.

    Raises:
        ImportError: Ray is not installed.
        AllocgymError: nothing answers at the address.
    """
    # Ray reports usage over the network unless told not to; benchmarks should not.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise missing_extra("ray", "ray") from error
    if ray.is_initialized():
        return ray
    if environment is None and os.environ.get(WHEEL):
        environment = wheel_environment(os.environ[WHEEL], not os.environ.get(WHEEL_ONLY))
    given = dict(environment or {})
    passed = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    given["env_vars"] = {**passed, **given.get("env_vars", {})}
    # "local" starts a new one; left out, Ray would look for a cluster that may be long dead.
    arguments: dict[str, Any] = (
        {"address": address} if address else {"address": "local", "include_dashboard": False}
    )
    try:
        ray.init(**arguments, runtime_env=given, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise AllocgymError(
            f"address: no Ray cluster answers at {address!r} ({error}); one that asks for a token needs "
            "RAY_AUTH_MODE=token here (Ray sets it by itself for 'auto' only)"
        ) from error
    return ray


def wheel_environment(
    wheel: Path | str, install: bool = True, extras: Sequence[str] = ("learn", "real")
) -> dict[str, Any]:
    """Return a Ray ``runtime_env`` that brings this package to nodes that do not have it.

    The package is unpacked here and sent by Ray itself, so no node needs to see the wheel's folder.

    Args:
        wheel: as ``pip wheel --no-deps .`` writes it.
        install: let every node install what the wheel depends on, from its package index. False where
            they have it (an image with PyTorch, say): then nothing is downloaded.
        extras: whose dependencies are installed besides the core's.

    Raises:
        AllocgymError: there is no such file.
    """
    path = Path(wheel)
    if path.suffix != ".whl" or not path.is_file():
        raise AllocgymError(f"wheel: a .whl file expected, given {path}")
    folder = Path(tempfile.mkdtemp(prefix="allocgym-wheel-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        metadata = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        header = email.parser.Parser().parsestr(archive.read(metadata).decode())
    found: dict[str, Any] = {"py_modules": [str(folder / "allocgym")]}
    if install:
        found["pip"] = _requirements(header.get_all("Requires-Dist") or [], extras)
    return found


def _requirements(lines: Sequence[str], extras: Sequence[str]) -> list[str]:
    """Requirements of the core and of some extras, without their markers."""
    from packaging.requirements import Requirement

    out = []
    for line in lines:
        need = Requirement(line)
        wanted = need.marker is None or any(need.marker.evaluate({"extra": e}) for e in extras)
        if wanted:
            need.marker = None
            out.append(str(need))
    return sorted(set(out))
