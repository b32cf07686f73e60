"""Problems and back ends by name, imported only when asked for.

A third party adds a problem or a back end from its own package with one call to `register_problem`
or `register_backend`; targets are strings, so registration imports nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from allocgym.envs.core.contracts import Backend, Problem
from allocgym.envs.core.errors import AllocgymError, unknown

_problems: dict[str, str] = {}
_backends: dict[tuple[str, str], str] = {}


def register_problem(problem: str, target: str) -> None:
    """Name a problem.

    Args:
        problem: id, lower case with hyphens, such as ``"data-mixing"``.
        target: ``"package.module:Class"`` of a `Problem`.
    """
    _problems[problem] = _checked(target)


def register_backend(problem: str, backend: str, target: str) -> None:
    """Name a back end of a problem.

    Args:
        problem: id of a registered problem.
        backend: such as ``"simpy"``, ``"twin"``, ``"real"`` or ``"replay"``.
        target: ``"package.module:callable"``; called with ``problem`` and keyword arguments, it
            returns a `Backend`.
    """
    _backends[problem, backend] = _checked(target)


def _checked(target: str) -> str:
    if target.count(":") != 1:
        raise AllocgymError(f"target: 'package.module:name' expected, given {target!r}")
    return target


def load(target: str) -> Any:
    """Import what a ``"package.module:name"`` string points to."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def problems() -> list[str]:
    """List the registered problems."""
    return sorted(_problems)


def backends(problem: str) -> list[str]:
    """List the registered back ends of a problem."""
    return sorted(name for owner, name in _backends if owner == problem)


def make_problem(problem: str, **arguments: Any) -> Problem:
    """Build a registered problem.

    Raises:
        AllocgymError: no problem of that name.
    """
    if problem not in _problems:
        raise unknown("problem", problem, _problems)
    made: Problem = load(_problems[problem])(**arguments)
    return made


def make_backend(problem: Problem, backend: str, **arguments: Any) -> Backend:
    """Build a registered back end for a problem.

    Raises:
        AllocgymError: no back end of that name for this problem.
    """
    if (problem.id, backend) not in _backends:
        raise unknown("backend", backend, backends(problem.id))
    made: Backend = load(_backends[problem.id, backend])(problem=problem, **arguments)
    return made
