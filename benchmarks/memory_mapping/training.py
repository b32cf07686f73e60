"""One command trains the mapping agent: ``allocgym train memory-mapping --out agent.zip``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from allocgym.agents.memory_mapping import learned
from allocgym.envs.core.errors import unknown
from allocgym.simulators.memory_mapping.backend import instances, make_scenario

TRAINERS = {"cma": 40}
FRACTIONS = (0.2, 0.3, 0.5, 0.65, 0.8)


def train_agent(
    out: Path, scenario: str, trainer: str, iterations: int, seed: int, overrides: dict[str, Any]
) -> dict[str, Any]:
    """Train the portfolio of priorities and write its file."""
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    settings = {"fractions": FRACTIONS, **overrides}
    members = int(settings.pop("members", 4))
    pairs = instances(make_scenario(scenario, **settings))
    policy, provenance = learned.train(pairs, members, iterations, seed)
    provenance["scenario"] = scenario
    policy.save(out, provenance)
    return provenance
