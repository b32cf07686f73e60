"""Agents of activation plans by name: a new one is a rule and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_PLANNER = "allocgym.agents.activation_plan.heuristics:RulePlanner"
AGENTS: dict[str, Target] = {
    "keep-all": (_PLANNER, {"rule": "keep-all"}),
    "recompute-all": (_PLANNER, {"rule": "recompute-all"}),
    "offload-all": (_PLANNER, {"rule": "offload-all"}),
    "cheapest-recompute": (_PLANNER, {"rule": "cheapest-recompute"}),
    "torch-dp": (_PLANNER, {"rule": "torch-dp"}),
    "torch-greedy": (_PLANNER, {"rule": "torch-greedy"}),
    "torch-ilp": (_PLANNER, {"rule": "torch-ilp"}),
    "learned": shipped("activation_plan", "learned"),
    "best-of": (_PLANNER, {"rule": "best-of"}),
    "plan-search": (_PLANNER, {"rule": "plan-search"}),
}
