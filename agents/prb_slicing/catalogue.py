"""Agents of radio slicing by name or file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.prb_slicing import heuristics as rules
from allocgym.agents.prb_slicing.oracles import ClairvoyantGreedy
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.prb_slicing.problem import PRBSlicing

PRETRAINED = Path(__file__).parent / "pretrained"

FIXED: dict[str, Callable[[PRBSlicing], Agent]] = {
    "random": rules.RandomWalk,
    "equal": rules.Equal,
    "expert": rules.Expert,
    "user-proportional": rules.UserProportional,
    "backlog-proportional": rules.BacklogProportional,
    "max-weight": rules.MaxWeight,
    "demand-proportional": rules.DemandProportional,
    "urllc-first": rules.UrllcFirst,
    "pi-hysteresis": rules.Hysteresis,
    "drift-plus-penalty": rules.DriftPlusPenalty,
}


def names() -> list[str]:
    """Names `make` understands, besides paths of agent files (and any other static split)."""
    shipped = [p.stem for p in sorted(PRETRAINED.glob("*.zip"))]
    return [*FIXED, *shipped, "static-1-4-12", "clairvoyant-greedy"]


def make(name: str | Path, problem: PRBSlicing) -> Agent:
    """Build an agent from a name, ``static-3-5-9`` or an agent file.

    Raises:
        AllocgymError: neither a known name nor a file.
    """
    text = str(name)
    if text in FIXED:
        return FIXED[text](problem)
    if text == "clairvoyant-greedy":
        return ClairvoyantGreedy(problem)
    if text.startswith("static-"):
        try:
            units = np.array([int(k) for k in text.split("-")[1:]])
        except ValueError as error:
            raise AllocgymError(
                f"agent: static-3-5-9 or the like expected, given {text}"
            ) from error
        return rules.Static(problem, units, text)
    shipped = PRETRAINED / f"{text}.zip"
    if shipped.exists():
        return from_file(shipped, problem)
    if Path(text).suffix == ".zip" or Path(text).exists():
        return from_file(Path(text), problem)
    raise unknown("agent", text, names())


def from_file(path: Path, problem: PRBSlicing) -> Agent:
    """Build an agent from its file.

    Raises:
        AllocgymError: no such file, or another problem's.
        CorruptFileError: damaged, or not an agent file.
    """
    if not path.is_file():
        raise AllocgymError(f"agent: no file {path}")
    description, weights = agent_file.load(path, full(problem))
    kind, settings = description["kind"], description["settings"]
    if kind in FIXED:
        return FIXED[kind](problem)
    if kind == "set-policy":
        policy, _ = agent_file.load_policy(path, full(problem))
        return PolicyAgent(full(problem), policy, name=path.stem)
    if kind == "dqn" and weights is not None:
        from allocgym.agents.prb_slicing.tractor import MoveAgent, QNetwork, network_values

        network = agent_file.network(path, QNetwork, settings, weights)
        return MoveAgent(problem, network_values(network), path.stem)
    if kind == "table" and weights is not None:
        from allocgym.agents.prb_slicing.tractor import MoveAgent, table_values

        try:
            table = weights["table"].numpy()
        except KeyError as error:
            raise CorruptFileError(f"{path}: a table agent without its table") from error
        return MoveAgent(problem, table_values(table, problem.groups), path.stem)
    raise AllocgymError(f"{path}: unknown kind of agent {kind!r}")


def full(problem: PRBSlicing) -> PRBSlicing:
    """The same slices with the full observation and share actions, which files are made for."""
    if problem.observation == "full" and problem.actions == "shares":
        return problem
    return PRBSlicing(problem.n_max, problem.groups)


def save(
    path: Path,
    problem: PRBSlicing,
    kind: str,
    settings: dict[str, Any],
    weights: dict[str, Any] | None,
    provenance: dict[str, Any],
) -> None:
    """Write an agent file of this problem."""
    agent_file.save(path, full(problem), kind, settings, weights, provenance)
