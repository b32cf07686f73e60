"""Agents of curve budgets by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_RULES = "allocgym.agents.curve_budget.heuristics"
_SIGNAL = "allocgym.agents.curve_budget.signal"
AGENTS: dict[str, Target] = {
    "random-search": f"{_RULES}:RandomSearch",
    "asha": f"{_RULES}:ASHA",
    "hyperband": f"{_RULES}:Hyperband",
    "median-stopping": f"{_RULES}:MedianStopping",
    "extrapolation": f"{_SIGNAL}:Extrapolation",
    "early-signals": f"{_SIGNAL}:EarlySignals",
    "learned": shipped("curve_budget", "learned"),
}
"""``learned`` is the priority as suite ``curves`` trains it: on ``taskset``."""
