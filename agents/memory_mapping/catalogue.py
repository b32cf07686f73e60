"""Agents of memory mapping by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_RULES = "allocgym.agents.memory_mapping.heuristics"
AGENTS: dict[str, Target] = {
    "drop-all": f"{_RULES}:DropAll",
    "myopic": f"{_RULES}:Myopic",
    "random": f"{_RULES}:RandomPlayer",
    "first-fit": (f"{_RULES}:RuleAgent", {"rule": "first-fit"}),
    "size": (f"{_RULES}:RuleAgent", {"rule": "size"}),
    "density": (f"{_RULES}:RuleAgent", {"rule": "density"}),
    "xla": (f"{_RULES}:RuleAgent", {"rule": "xla"}),
    "order-climb": f"{_RULES}:ClimbAgent",
    "priorities": shipped("memory_mapping", "priorities"),
    "segments": shipped("memory_mapping", "segments"),
}
