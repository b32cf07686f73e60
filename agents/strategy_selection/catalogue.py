"""Agents of strategy selection by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_RULES = "allocgym.agents.strategy_selection.heuristics"
AGENTS: dict[str, Target] = {
    "least-memory": f"{_RULES}:LeastMemory",
    "myopic": f"{_RULES}:Myopic",
    "look-ahead": f"{_RULES}:LookAhead",
    "random": f"{_RULES}:RandomSelector",
    "search": f"{_RULES}:Search",
    "scored": shipped("strategy_selection", "learned"),
}
