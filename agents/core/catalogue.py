"""Agents by name, by file, or by class: one way to say who decides, wherever an agent is named.

A problem's table of agents (`Entry.agents`) maps names to targets: ``"package.module:Class"``, or that
with keyword arguments; the class is called with the problem. A name that ends in ``*`` stands for all
names that begin so, and its class is called with the rest of the name as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.core.registry import Target, called, entry, load


def shipped(room: str, name: str) -> Target:
    """Target of an agent file that ships with the package (``agents/<room>/pretrained/<name>.zip``)."""
    file = str(Path(__file__).parents[1] / room / "pretrained" / f"{name}.zip")
    return "allocgym.agents.core.catalogue:from_file", {"path": file}


def names(problem: str) -> list[str]:
    """Names of a problem's agents, as `make` understands them."""
    return list(_table(problem))


def make(name: str | Path, problem: Problem) -> Agent[Any, Any]:
    """Build an agent.

    Args:
        name: a name of the problem's table, an agent file, or ``"package.module:Class"`` (called with
            the problem).
        problem: what it decides.

    Raises:
        AllocgymError: none of these, or an agent of another problem.
        CorruptFileError: the file is damaged, or no agent file.
    """
    text = str(name)
    table = _table(problem.id)
    if text in table:
        return _checked(called(table[text])(problem=problem), text)
    if Path(text).suffix == ".zip" or Path(text).is_file():
        return from_file(problem, text)
    for pattern, target in table.items():
        if pattern.endswith("*") and text.startswith(pattern[:-1]):
            return _checked(called(target)(problem, text[len(pattern) - 1 :]), text)
    if ":" in text:
        try:
            made = load(text)
        except ImportError as error:
            raise AllocgymError(f"agent: {text!r} cannot be imported ({error})") from error
        if isinstance(made, type) and not issubclass(made, Agent):
            raise AllocgymError(f"agent: {text!r} is no Agent")
        return _checked(made(problem), text)
    raise unknown("agent", text, table)


def from_file(problem: Problem, path: str | Path) -> Agent[Any, Any]:
    """Build an agent from its file; see `agent_file`.

    Raises:
        AllocgymError: no such file, or an agent of another problem or encoding.
        CorruptFileError: damaged, or not an agent file.
    """
    plain = problem.plain()
    description, weights = agent_file.load(Path(path), plain)
    kind, settings, name = description["kind"], description.get("settings"), Path(path).stem
    if kind == "set-policy":
        policy, _ = agent_file.load_policy(Path(path), plain)
        return PolicyAgent(plain, policy, name=name)
    kinds = entry(problem.id).kinds
    if kind in kinds:
        try:
            made: Agent[Any, Any] = load(kinds[kind]).from_file(problem, settings, weights, name)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, AllocgymError):
                raise
            raise CorruptFileError(
                f"{path}: {kind!r} without what it is made of ({error})"
            ) from error
        return made
    table = _table(problem.id)
    if kind in table:
        return _checked(called(table[kind])(problem=problem), name)
    raise AllocgymError(f"{path}: unknown kind of agent {kind!r}")


def _table(problem: str) -> Mapping[str, Target]:
    found: Mapping[str, Target] = load(entry(problem).agents)
    return found


def _checked(made: Any, name: str) -> Agent[Any, Any]:
    if not isinstance(made, Agent):
        raise AllocgymError(f"agent: {name!r} makes a {type(made).__name__}, an Agent expected")
    return made
