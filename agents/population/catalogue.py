"""Agents of populations by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.agents.core.catalogue import shipped
from allocgym.envs.core.registry import Target

_RULES = "allocgym.agents.population.heuristics"
_RUN = f"{_RULES}:OneRun"
_GRID = "allocgym.agents.population.grid:GridWSD"
_ORACLE = "allocgym.agents.population.oracles:SearchedRun"
_OUTSIDE = "allocgym.agents.population.outside"
AGENTS: dict[str, Target] = {
    "random-search": f"{_RULES}:RandomSearch",
    "random": f"{_RULES}:RandomPlan",
    "pbt": f"{_RULES}:PBT",
    "pbt-1": (f"{_RULES}:PBT", {"every": 1}),
    "pbt-4": (f"{_RULES}:PBT", {"every": 4}),
    "pbt-8": (f"{_RULES}:PBT", {"every": 8}),
    "pbt-t-test": (f"{_RULES}:PBT", {"test": True}),
    "copy-only": (f"{_RULES}:PBT", {"explore": False, "name": "copy only"}),
    "explore-only": (f"{_RULES}:PBT", {"exploit": False, "name": "explore only"}),
    "mf-pbt": f"{_RULES}:MFPBT",
    "fire-like": f"{_RULES}:Fire",
    "asha": f"{_RULES}:ASHA",
    "hyperband": f"{_RULES}:Hyperband",
    "pb2": "allocgym.agents.population.pb2:PB2",
    "wsd": _RUN,
    "cosine": (_RUN, {"schedule": "cosine"}),
    "rex": (_RUN, {"schedule": "rex"}),
    "linear": (_RUN, {"schedule": "linear"}),
    "constant": (_RUN, {"schedule": "constant"}),
    "uba": (_RUN, {"schedule": "uba"}),
    "power": (_RUN, {"schedule": "power"}),
    "grid-wsd": _GRID,
    "grid-then-wsd": (_GRID, {"share": 0.4}),
    "ray-tune-pbt": f"{_OUTSIDE}:ray_tune_pbt",
    "ray-tune-asha": f"{_OUTSIDE}:ray_tune_asha",
    "syne-tune-pbt": f"{_OUTSIDE}:syne_tune_pbt",
    "learned": shipped("population", "learned"),
    "tuned-wsd": (_ORACLE, {"free": False}),
    "oracle": _ORACLE,
}
"""``learned`` is the parametric controller as suite ``real`` trains it: ``unknown-edge``, periods of 20
steps."""
