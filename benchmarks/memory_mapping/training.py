"""One command trains an agent: ``allocgym train memory-mapping --out agent.zip``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym

from allocgym.agents.memory_mapping import priority as learned
from allocgym.envs.core.errors import missing_extra, unknown
from allocgym.simulators.memory_mapping.backend import instances, make_scenario

TRAINERS = {"cma": 40, "masked-ppo": 200_000}
"""Generations of CMA-ES (the order game's priorities); steps of masked PPO (the segment game)."""
FRACTIONS = (0.2, 0.3, 0.5, 0.65, 0.8)


def train_agent(
    out: Path, scenario: str, trainer: str, iterations: int, seed: int, overrides: dict[str, Any]
) -> dict[str, Any]:
    """Train an agent of the mapping game and write its file."""
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    settings = {"fractions": FRACTIONS, **overrides}
    if trainer == "masked-ppo":
        return masked(
            "allocgym/MemoryMapping-v0",
            out,
            scenario,
            iterations,
            seed,
            {**settings, "illegal": "drop"},
        )
    members = int(settings.pop("members", 4))
    pairs = instances(make_scenario(scenario, **settings))
    policy, provenance = learned.train(pairs, members, iterations, seed)
    provenance["scenario"] = scenario
    policy.save(out, provenance)
    return provenance


def masked(
    name: str, out: Path, scenario: str, steps: int, seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Train a segment policy by masked PPO and write its file."""
    try:
        from allocgym.agents.core import masked_ppo as ppo
        from allocgym.agents.core import segment_policy as segments
    except ImportError as error:
        raise missing_extra("sb3-contrib", "learn") from error
    env: Any = gym.make_vec(f"allocgym:{name}", num_envs=64, scenario=scenario, **settings)
    policy, provenance = ppo.train(env.unwrapped, steps, seed)
    provenance["scenario"] = scenario
    segments.save(out, env.unwrapped.problem, policy, provenance)
    return provenance
