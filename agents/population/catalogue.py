"""Agents of populations by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.population import heuristics as rules
from allocgym.agents.population.index import IndexController
from allocgym.agents.population.oracles import SearchedRun
from allocgym.agents.population.outside import OUTSIDE
from allocgym.agents.population.pb2 import PB2
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.population.problem import Population

FIXED: dict[str, Callable[[Population], Agent]] = {
    "random-search": rules.RandomSearch,
    "random": rules.RandomPlan,
    "pbt": rules.PBT,
    "pbt-1": lambda p: rules.PBT(p, every=1),
    "pbt-4": lambda p: rules.PBT(p, every=4),
    "pbt-8": lambda p: rules.PBT(p, every=8),
    "pbt-t-test": lambda p: rules.PBT(p, test=True),
    "copy-only": lambda p: rules.PBT(p, explore=False, name="copy only"),
    "explore-only": lambda p: rules.PBT(p, exploit=False, name="explore only"),
    "mf-pbt": rules.MFPBT,
    "fire-like": rules.Fire,
    "asha": rules.ASHA,
    "hyperband": rules.Hyperband,
    "pb2": PB2,
    "wsd": rules.OneRun,
    "cosine": lambda p: rules.OneRun(p, "cosine"),
    "rex": lambda p: rules.OneRun(p, "rex"),
    "linear": lambda p: rules.OneRun(p, "linear"),
    "constant": lambda p: rules.OneRun(p, "constant"),
    "uba": lambda p: rules.OneRun(p, "uba"),
    "power": lambda p: rules.OneRun(p, "power"),
    **OUTSIDE,
}
ORACLES: dict[str, Callable[[Population], Agent]] = {
    "tuned-wsd": lambda p: SearchedRun(p, free=False),
    "oracle": SearchedRun,
}
FIRST_DONOR, FIRST_FACTOR, FIRST_LEVEL = (
    (2.0, 0, 0, 0, 0),
    (0.0, 1.0, 0.0, -1.0),
    (-1.0, 0.0, 1.5, 0.0),
)


def first_logits(problem: Population) -> list[float]:
    """Logits of an untrained policy: mostly keep, mostly the same knobs, equal steps."""
    return [*FIRST_DONOR, *(FIRST_FACTOR * len(problem.knobs)), *FIRST_LEVEL]


PRETRAINED = Path(__file__).parent / "pretrained" / "population.zip"
"""The parametric controller as suite ``real`` trains it: ``unknown-edge``, periods of 20 steps."""


def names() -> list[str]:
    """Names `make` understands, besides paths of agent files."""
    return [*FIXED, "learned", *ORACLES]


def make(name: str | Path, problem: Population) -> Agent:
    """Build an agent from a name or an agent file; ``"learned"`` is the one that is shipped.

    Raises:
        AllocgymError: neither a known name nor a file.
    """
    text = str(PRETRAINED if str(name) == "learned" else name)
    if text in FIXED:
        return FIXED[text](problem)
    if text in ORACLES:
        return ORACLES[text](problem)
    if Path(text).suffix == ".zip" or Path(text).exists():
        description, _ = agent_file.load(Path(text), problem)
        if description["kind"] == "set-policy":
            policy, _ = agent_file.load_policy(Path(text), problem)
            return PolicyAgent(problem, policy, name=Path(text).stem)
        if description["kind"] == "index":
            try:
                parameters = description["settings"]["parameters"]
            except (KeyError, TypeError) as error:
                raise CorruptFileError(f"{text}: an index controller without parameters") from error
            stem = "learned (cma)" if Path(text) == PRETRAINED else Path(text).stem
            return IndexController(problem, parameters, stem)
        raise AllocgymError(f"{text}: unknown kind of agent {description['kind']!r}")
    raise unknown("agent", text, names())


def save_policy(path: Path, problem: Population, policy: Any, provenance: dict[str, Any]) -> None:
    """Write a learned `SetPolicy` as an agent file."""
    agent_file.save(path, problem, "set-policy", policy.settings, policy.state_dict(), provenance)
