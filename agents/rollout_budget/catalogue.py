"""Agents of rollout budgets by name, and agent files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.rollout_budget import published as pub
from allocgym.agents.rollout_budget import rules
from allocgym.agents.rollout_budget.agent import RuleAgent
from allocgym.agents.rollout_budget.learned import LearnedIndex
from allocgym.agents.rollout_budget.rules import Rule
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.rollout_budget.problem import RolloutBudget

RULES: dict[str, Callable[[], Rule]] = {
    "uniform": rules.Uniform,
    "uniform-16": lambda: rules.Uniform(16),
    "uniform-32": lambda: rules.Uniform(32),
    "knapsack-published": pub.KnapsackPublished,
    "knapsack-beta": lambda: rules.PosteriorGreedy(weighted=True),
    "posterior-greedy": rules.PosteriorGreedy,
    "vip-rloo": rules.Neyman,
    "vip-drgrpo": rules.VIPDrGRPO,
    "cures": pub.CurES,
    "gvm": rules.GVM,
    "difficulty-filter": pub.DifficultyFilter,
    "dapo-refill": pub.DAPORefill,
    "greso": pub.GRESO,
    "mopps": pub.MoPPS,
    "speed": pub.SPEED,
    "reinforce-ada": pub.ReinforceAda,
    "sequential": pub.SequentialUntilMixed,
    "sec": pub.SEC,
    "dump": pub.DUMP,
    "deficiency-first": rules.Deficiency,
    "random": rules.Random,
    "anti": rules.Anti,
}
SEARCHING: dict[str, Callable[[], Rule]] = {"coverage": rules.Coverage}
"""Rules for search at a fixed cost."""
LOOKING: dict[str, Callable[[], Rule]] = {"gain-rl": pub.GainRL}
"""Rules that look into the model they train: on the real back end only."""
ORACLES = ("oracle", "oracle per token", "oracle coverage")
PRETRAINED = Path(__file__).parent / "pretrained"


def names() -> list[str]:
    """Names `make` understands, besides paths of agent files."""
    return [
        *RULES,
        *SEARCHING,
        *LOOKING,
        *ORACLES,
        *sorted(f"learned:{p.stem}" for p in PRETRAINED.glob("*.zip")),
    ]


def make_rule(name: str | Path) -> Rule:
    """Build a rule from its name or an agent file (``"learned:NAME"`` for one that ships).

    Raises:
        AllocgymError: neither a known name nor a file of a rule.
    """
    text = str(name)
    if text in RULES:
        return RULES[text]()
    for special in (SEARCHING, LOOKING):
        if text in special:
            return special[text]()
    path = _path(text)
    if path is None:
        raise unknown("agent", text, names())
    description, _ = agent_file.load(path, RolloutBudget(2, "per_prompt"))
    if description["kind"] == "learned-index":
        try:
            return LearnedIndex(description["settings"]["weights"], path.stem)
        except (KeyError, TypeError) as error:
            raise CorruptFileError(f"{text}: a learned index without its weights") from error
    if description["kind"] in RULES:
        return RULES[description["kind"]]()
    raise AllocgymError(f"{text}: holds {description['kind']!r}, not a rule")


def _path(text: str) -> Path | None:
    if text.startswith("learned:"):
        path = PRETRAINED / f"{text.partition(':')[2]}.zip"
        return path if path.exists() else None
    if Path(text).suffix == ".zip" or Path(text).exists():
        return Path(text)
    return None


def make(name: str | Path, problem: RolloutBudget) -> Agent[Any, Any]:
    """Build an agent from a name or an agent file.

    Raises:
        AllocgymError: neither a known name nor a file.
    """
    text = str(name)
    if text in ORACLES:
        from allocgym.agents.rollout_budget.oracle import CoverageOracle, Oracle

        if text == "oracle coverage":
            return CoverageOracle(problem)
        return Oracle(problem, cost_aware=text != "oracle")
    path = _path(text)
    if path is not None:
        description, _ = agent_file.load(path, problem)
        if description["kind"] == "set-policy":
            policy, _ = agent_file.load_policy(path, problem)
            return PolicyAgent(problem, policy, name=path.stem)
    return RuleAgent(problem, make_rule(text))


def save_rule(
    path: Path, problem: RolloutBudget, rule: Rule, provenance: dict[str, Any] | None = None
) -> None:
    """Write a rule as an agent file (a learned one with its weights)."""
    if isinstance(rule, LearnedIndex):
        settings: dict[str, Any] = {"weights": rule.weights.tolist()}
        agent_file.save(path, problem, "learned-index", settings, None, provenance)
        return
    if rule.name not in RULES:
        raise unknown("rule", rule.name, RULES)
    agent_file.save(path, problem, rule.name, {}, None, provenance)
