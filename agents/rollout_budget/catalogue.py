"""Agents of rollout budgets by name: a new rule is a class and a line here."""

from __future__ import annotations

from typing import Any

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_ROOM = "allocgym.agents.rollout_budget"
SHIPPED = ("hard-tail-rollouts", "hetero-cost-tokens", "prereq-rollouts")
"""Agent files of the package: the scenario and the axis each was trained for."""


def _rule(place: str, **arguments: Any) -> Target:
    """A rule behind an agent; `agent.make_rule` takes it out again."""
    return f"{_ROOM}.agent:RuleAgent", {"rule": f"{_ROOM}.{place}", **arguments}


RULES: dict[str, Target] = {
    "uniform": _rule("rules:Uniform"),
    "uniform-16": _rule("rules:Uniform", group=16),
    "uniform-32": _rule("rules:Uniform", group=32),
    "knapsack-published": _rule("published:KnapsackPublished"),
    "knapsack-beta": _rule("rules:PosteriorGreedy", weighted=True),
    "posterior-greedy": _rule("rules:PosteriorGreedy"),
    "vip-rloo": _rule("rules:Neyman"),
    "vip-drgrpo": _rule("rules:VIPDrGRPO"),
    "cures": _rule("published:CurES"),
    "gvm": _rule("rules:GVM"),
    "difficulty-filter": _rule("published:DifficultyFilter"),
    "dapo-refill": _rule("published:DAPORefill"),
    "greso": _rule("published:GRESO"),
    "mopps": _rule("published:MoPPS"),
    "speed": _rule("published:SPEED"),
    "reinforce-ada": _rule("published:ReinforceAda"),
    "sequential": _rule("published:SequentialUntilMixed"),
    "sec": _rule("published:SEC"),
    "dump": _rule("published:DUMP"),
    "deficiency-first": _rule("rules:Deficiency"),
    "random": _rule("rules:Random"),
    "anti": _rule("rules:Anti"),
}
"""Rules that divide the rollouts of training, on any back end."""
AGENTS: dict[str, Target] = {
    **RULES,
    # For search at a fixed cost.
    "coverage": _rule("rules:Coverage"),
    # Looks into the model in training: on the real back end only.
    "gain-rl": _rule("published:GainRL"),
    "oracle": f"{_ROOM}.oracle:Oracle",
    "oracle-per-token": (f"{_ROOM}.oracle:Oracle", {"cost_aware": True}),
    "oracle-coverage": f"{_ROOM}.oracle:CoverageOracle",
    **{f"learned:{name}": shipped("rollout_budget", name) for name in SHIPPED},
}
