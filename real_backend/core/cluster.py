"""The Ray cluster of this process: joined at an address, or started on this machine."""

from __future__ import annotations

import logging
import os
from typing import Any

from allocgym.envs.core.errors import AllocgymError, missing_extra

PASSED_ON = ("ALLOCGYM_DATA", "ALLOCGYM_CACHE", "OMP_NUM_THREADS")
"""Environment variables that workers get as this process has them."""


def connect(address: str | None = None, environment: dict[str, Any] | None = None) -> Any:
    """Connect to a Ray cluster, or start one on this machine; return the module ``ray``.

    Workers get the folder of public data and the thread count of this process.

    Args:
        address: of a running cluster (``"auto"``, ``"ray://..."``), or None: one on this machine, or
            the one this process is connected to already.
        environment: a Ray ``runtime_env`` for the workers, such as one that brings our wheel.

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
        raise AllocgymError(f"address: no Ray cluster answers at {address!r} ({error})") from error
    return ray
