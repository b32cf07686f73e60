"""Agents of packing by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_SOLVER = "allocgym.agents.packing.heuristics:SolverPacker"
AGENTS: dict[str, Target] = {
    "program": (_SOLVER, {"solver": "program"}),
    "size": (_SOLVER, {"solver": "size"}),
    "lifetime": (_SOLVER, {"solver": "lifetime"}),
    "area": (_SOLVER, {"solver": "area"}),
    "contention": (_SOLVER, {"solver": "contention"}),
    "learned": shipped("packing", "learned"),
    "climb": (_SOLVER, {"solver": "climb"}),
    "learned+climb": (_SOLVER, {"solver": "learned+climb"}),
    "cp-sat": (_SOLVER, {"solver": "cp-sat"}),
    "minimalloc": (_SOLVER, {"solver": "minimalloc"}),
    "random": "allocgym.agents.packing.heuristics:RandomPacker",
}
