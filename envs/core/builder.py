"""From names and keywords to a problem on a back end: the one way everything is built."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from allocgym.envs.core.contracts import Backend, Problem
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.registry import called, entry, load
from allocgym.envs.core.scenario import check_kind, check_numbers

MOST_ENVS = 2**17
"""Environments in a batch."""
_TAKEN = ("self", "problem", "scenario", "num_envs")


def build(
    problem: str,
    backend: str | None = None,
    scenario: Any = None,
    num_envs: int = 1,
    **arguments: Any,
) -> Backend:
    """Build a problem on a back end; the problem is the back end's ``problem``.

    Args:
        problem: id of a registered problem.
        backend: name of one of its back ends (default: for one environment the entry's first, for more
            its twin).
        scenario: name of a scenario, or one made already (default: the entry's).
        num_envs: environments in the batch.
        arguments: of the problem, fields of the scenario, arguments of the back end; each goes where
            its name belongs.

    Raises:
        AllocgymError: a name that does not exist (with the nearest one and where it would belong), or a
            value of a wrong kind or out of range.
    """
    name = backend or _usual(problem, num_envs)
    made, kind, scenario, left = _prepared(problem, name, scenario, arguments)
    return _finished(kind, name, made, scenario, num_envs, left)


def build_problem(problem: str, backend: str, scenario: Any = None, **arguments: Any) -> Problem:
    """Build the problem that `build` would put on a back end, without the back end."""
    return _prepared(problem, backend, scenario, arguments)[0]


def check_scenario(problem: str, backend: str, scenario: Any) -> None:
    """Raise `AllocgymError` where a back end has no scenario of that name."""
    _chosen(problem, backend, scenario, {}, ())


def _usual(problem: str, num_envs: int) -> str:
    found = entry(problem)
    return next(iter(found.backends)) if num_envs == 1 else found.vector_backend


def _prepared(
    problem: str, backend: str, scenario: Any, arguments: Mapping[str, Any]
) -> tuple[Problem, Any, Any, dict[str, Any]]:
    """The problem, the back end's class, the scenario, and the arguments left for the back end."""
    names = _parameters(load(entry(problem).problem))
    own = {k: v for k, v in arguments.items() if k in names}
    rest = {k: v for k, v in arguments.items() if k not in names}
    kind, scenario, left = _chosen(problem, backend, scenario, rest, names)
    return make_problem(problem, **{**kind.suits(scenario), **own}), kind, scenario, left


def make_problem(problem: str, **arguments: Any) -> Problem:
    """Build a registered problem.

    Raises:
        AllocgymError: no problem or argument of that name, or a value of a wrong kind or out of range.
    """
    target = load(entry(problem).problem)
    _check(f"problem {problem!r}", _parameters(target), arguments)
    made: Problem = target(**arguments)
    return made


def make_backend(
    problem: Problem, backend: str, scenario: Any = None, num_envs: int = 1, **arguments: Any
) -> Backend:
    """Build a back end for a problem that exists already; else as `build`."""
    kind, scenario, left = _chosen(problem.id, backend, scenario, arguments, ())
    return _finished(kind, backend, problem, scenario, num_envs, left)


def _chosen(
    problem: str, backend: str, scenario: Any, arguments: Mapping[str, Any], names: Any
) -> tuple[Any, Any, dict[str, Any]]:
    """The back end's class, the scenario with its fields replaced, and what is left for the back end."""
    found = entry(problem)
    if backend not in found.backends:
        raise unknown("backend", backend, found.backends)
    target = found.backends[backend]
    kind = _Bound(called(target), load(target if isinstance(target, str) else target[0]))
    own = {k: v for k, v in arguments.items() if k in kind.parameters}
    changes = {k: v for k, v in arguments.items() if k not in kind.parameters}
    asked = found.scenario if scenario is None else scenario
    base = kind.cls.choose(asked, {})
    fields = [f.name for f in dataclasses.fields(base)] if dataclasses.is_dataclass(base) else []
    for name in changes:
        if name not in fields:
            raise _nowhere(
                name,
                {"the problem": names, "the scenario": fields, "the back end": kind.parameters},
            )
    return kind, kind.cls.choose(asked, changes), own


def _finished(
    kind: Any, name: str, problem: Problem, scenario: Any, num_envs: int, arguments: dict[str, Any]
) -> Backend:
    check_kind("num_envs", "int", num_envs)
    check_numbers("num_envs", num_envs, 1, MOST_ENVS if kind.cls.batched else 1)
    _check(f"backend {name!r}", kind.parameters, arguments)
    batch = {"num_envs": num_envs} if kind.cls.batched else {}
    made: Backend = kind.make(problem, scenario, **batch, **arguments)
    made.spec = dataclasses.replace(made.spec, backend=name)
    return made


class _Bound:
    """A back end's class, how it is called, and the keywords that remain to be given."""

    def __init__(self, make: Callable[..., Any], cls: Any) -> None:
        self.make, self.cls = make, cls
        given = make.keywords if isinstance(make, functools.partial) else {}
        self.parameters = {k: v for k, v in _parameters(cls).items() if k not in given}

    def suits(self, scenario: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.cls.suits(scenario)
        return found


@functools.cache
def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    """Keywords of a constructor that a user may give."""
    found = inspect.signature(target).parameters
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {k: p for k, p in found.items() if p.kind in kinds and k not in _TAKEN}


def _check(
    what: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> None:
    for name, value in arguments.items():
        if name not in parameters:
            raise unknown(what, name, parameters)
        check_kind(name, str(parameters[name].annotation), value)
        check_numbers(name, value)


def _nowhere(name: str, places: Mapping[str, Any]) -> AllocgymError:
    """The error for a keyword that belongs nowhere: the nearest one that does, and where."""
    where = {word: place for place, words in places.items() for word in words}
    close = difflib.get_close_matches(name, where, n=1)
    hint = f" Did you mean {close[0]!r}, of {where[close[0]]}?" if close else ""
    told = "; ".join(f"{p}: {', '.join(sorted(w)) or 'none'}" for p, w in places.items())
    return AllocgymError(f"arguments: no {name!r}; {told}.{hint}")
