"""Agents of data mixing by name: a new one is a class and a line here."""

from __future__ import annotations

from allocgym.envs.core.registry import Target

_RULES = "allocgym.agents.data_mixing.heuristics"
_ORACLE = "allocgym.agents.data_mixing.oracles:ClairvoyantSchedule"
AGENTS: dict[str, Target] = {
    "uniform": f"{_RULES}:Uniform",
    "natural": f"{_RULES}:Natural",
    "weights": f"{_RULES}:Weights",
    "temperature-2": (f"{_RULES}:Temperature", {"tau": 2.0}),
    "temperature-5": (f"{_RULES}:Temperature", {"tau": 5.0}),
    "replay-5%": (f"{_RULES}:ConstantReplay", {"replay": 0.05}),
    "replay-10%": (f"{_RULES}:ConstantReplay", {"replay": 0.10}),
    "replay-25%": (f"{_RULES}:ConstantReplay", {"replay": 0.25}),
    "replay-50%": (f"{_RULES}:ConstantReplay", {"replay": 0.50}),
    "random": f"{_RULES}:RandomMixer",
    "odm": f"{_RULES}:ODM",
    "skill-it": f"{_RULES}:SkillIt",
    "oracle-static": (_ORACLE, {"static": True}),
    "oracle-schedule": _ORACLE,
}
