"""Agents of radio slicing by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_RULES = "allocgym.agents.prb_slicing.heuristics"
AGENTS: dict[str, Target] = {
    "random": f"{_RULES}:RandomWalk",
    "equal": f"{_RULES}:Equal",
    "expert": f"{_RULES}:Expert",
    "user-proportional": f"{_RULES}:UserProportional",
    "backlog-proportional": f"{_RULES}:BacklogProportional",
    "max-weight": f"{_RULES}:MaxWeight",
    "demand-proportional": f"{_RULES}:DemandProportional",
    "urllc-first": f"{_RULES}:UrllcFirst",
    "pi-hysteresis": f"{_RULES}:Hysteresis",
    "drift-plus-penalty": f"{_RULES}:DriftPlusPenalty",
    "learned": shipped("prb_slicing", "learned"),
    "tractor-dqn": shipped("prb_slicing", "tractor-dqn"),
    "tractor-table": shipped("prb_slicing", "tractor-table"),
    "static-1-4-12": f"{_RULES}:Static",
    "static-*": f"{_RULES}:Static",
    "clairvoyant-greedy": "allocgym.agents.prb_slicing.oracles:ClairvoyantGreedy",
}
