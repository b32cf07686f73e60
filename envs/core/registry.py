"""Problems by id: one `Entry` each, found here by every command, environment and test.

A third party's package brings its own in an entry point, and every command then works with it::

    [project.entry-points."allocgym.problems"]
    my-problem = "my_package.registration:ENTRY"
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import gymnasium as gym

from allocgym.envs.core.errors import AllocgymError, unknown

GROUP = "allocgym.problems"
"""Entry points in which packages name their entries."""
Target = str | tuple[str, Mapping[str, Any]]
"""``"package.module:name"``, or that and arguments to call it with."""


@dataclasses.dataclass(frozen=True)
class Suite:
    """A benchmark suite.

    Attributes:
        target: ``"package.module:function"``, called with `benchmarks.core.suite.Options`; returns the
            exit code.
        about: what it measures and its two-core time.
        seeds: paired seeds in full.
        quick_seeds: paired seeds with ``--quick``.
    """

    target: str
    about: str
    seeds: int = 1
    quick_seeds: int = 1


@dataclasses.dataclass(frozen=True)
class Entry:
    """All there is to know of a problem before anything of it is imported. Targets are strings.

    Attributes:
        id: lower case with hyphens, such as ``"data-mixing"``.
        env: Gymnasium id, such as ``"allocgym/DataMixing-v0"``.
        environment: scalar environment class, named ``...Env``; the batched one stands beside it as
            ``...VectorEnv``.
        problem: `Problem` class.
        backends: `Backend` classes by name; the first is the scalar environment's default.
        scenarios: mapping of the simulator's scenarios by name.
        agents: mapping of agents by name (see `agents.core.catalogue`).
        scenario: default scenario.
        reference: agent that others are compared with.
        fallback: agent that acts where another cannot (default: ``reference``).
        bounds: agents that see more than others may; shown in comparisons as bounds.
        trainers: trainer and its default number of iterations, by name; the first is the default.
        suites: mapping of `Suite` by name.
        kinds: classes that read further kinds of agent file (``Class.from_file``), by kind.
        tools: further commands (``"calibrate"``, ``"fit"``, ``"recommend"``, ``"trace"``) by name.
    """

    id: str
    env: str
    environment: str
    problem: str
    backends: Mapping[str, Target]
    scenarios: str
    agents: str
    scenario: str
    reference: str
    fallback: str = ""
    bounds: tuple[str, ...] = ()
    trainers: Mapping[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    suites: str = ""
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tools: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fallback", self.fallback or self.reference)

    @property
    def vector_backend(self) -> str:
        """Default of the batched environment: ``"twin"``, or else the first."""
        return "twin" if "twin" in self.backends else next(iter(self.backends))

    @property
    def real_backend(self) -> str:
        """Default of a deployment: what runs for real, or else the batched environment's."""
        return next((b for b in ("real", "torch") if b in self.backends), self.vector_backend)


_entries: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Make a problem known to every command and to Gymnasium. Imports nothing of it; idempotent.

    Raises:
        AllocgymError: another entry has this id.
    """
    if _entries.setdefault(entry.id, entry) != entry:
        raise AllocgymError(f"problem: {entry.id!r} is registered already, as another one")
    if entry.env not in gym.registry:
        gym.register(
            id=entry.env,
            entry_point=entry.environment,
            vector_entry_point=f"{entry.environment.removesuffix('Env')}VectorEnv",
            disable_env_checker=True,
        )


def register_installed() -> None:
    """Register what installed packages bring; one that cannot be loaded is warned about and left out."""
    for point in metadata.entry_points(group=GROUP):
        try:
            register(point.load())
        except Exception as error:  # a stranger's package must not take ours down
            warnings.warn(
                f"allocgym: problem {point.name!r} cannot be loaded: {error}", stacklevel=2
            )


def entry(problem: str) -> Entry:
    """Look a problem up by its id.

    Raises:
        AllocgymError: no problem of that name.
    """
    if problem not in _entries:
        raise unknown("problem", problem, _entries)
    return _entries[problem]


def entries() -> list[Entry]:
    """All problems, by id."""
    return [_entries[name] for name in sorted(_entries)]


def load(target: str) -> Any:
    """Import what a ``"package.module:name"`` string points to.

    Raises:
        AllocgymError: not of that form, or nothing there.
    """
    module, _, name = target.partition(":")
    if not module or not name:
        raise AllocgymError(f"target: 'package.module:name' expected, given {target!r}")
    try:
        return functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except AttributeError as error:
        raise AllocgymError(f"target: {module} has no {name!r}") from error


def called(target: Target) -> Callable[..., Any]:
    """Import a target that is to be called, with the arguments it brings filled in."""
    if isinstance(target, str):
        found: Callable[..., Any] = load(target)
        return found
    return functools.partial(load(target[0]), **target[1])
