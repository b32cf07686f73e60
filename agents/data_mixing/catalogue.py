"""Agents of data mixing by name, and the trainers that make learned ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.data_mixing import heuristics as rules
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.data_mixing.problem import DataMixing

FIXED: dict[str, Callable[[DataMixing], Agent]] = {
    "uniform": rules.Uniform,
    "natural": rules.Natural,
    "weights": rules.Weights,
    "temperature-2": lambda p: rules.Temperature(p, 2.0),
    "temperature-5": lambda p: rules.Temperature(p, 5.0),
    "replay-5%": lambda p: rules.ConstantReplay(p, 0.05),
    "replay-10%": lambda p: rules.ConstantReplay(p, 0.10),
    "replay-25%": lambda p: rules.ConstantReplay(p, 0.25),
    "replay-50%": lambda p: rules.ConstantReplay(p, 0.50),
    "random": rules.RandomMixer,
    "odm": rules.ODM,
    "skill-it": rules.SkillIt,
}


def names() -> list[str]:
    """Names `make` understands, besides paths of agent files."""
    return [*FIXED, "oracle-static", "oracle-schedule"]


def make(name: str | Path, problem: DataMixing) -> Agent:
    """Build an agent from a name or an agent file.

    Raises:
        AllocgymError: neither a known name nor a file.
    """
    text = str(name)
    if text in FIXED:
        return FIXED[text](problem)
    if text in ("oracle-static", "oracle-schedule"):
        from allocgym.agents.data_mixing.oracles import ClairvoyantSchedule

        return ClairvoyantSchedule(problem, static=text == "oracle-static")
    if Path(text).suffix == ".zip" or Path(text).exists():
        description, _ = agent_file.load(Path(text), problem)
        if description["kind"] == "set-policy":
            policy, _ = agent_file.load_policy(Path(text), problem)
            return PolicyAgent(problem, policy, name=Path(text).stem)
        if description["kind"] == "index":
            from allocgym.agents.data_mixing.index import IndexMixer

            try:
                weights = description["settings"]["weights"]
            except (KeyError, TypeError) as error:
                raise CorruptFileError(f"{text}: an index mixer without its weights") from error
            return IndexMixer(problem, weights, Path(text).stem)
        if description["kind"] in FIXED:
            return FIXED[description["kind"]](problem)
        raise AllocgymError(f"{text}: unknown kind of agent {description['kind']!r}")
    raise unknown("agent", text, names())


def save_policy(path: Path, problem: DataMixing, policy: Any, provenance: dict[str, Any]) -> None:
    """Write a learned `SetPolicy` as an agent file."""
    agent_file.save(path, problem, "set-policy", policy.settings, policy.state_dict(), provenance)
