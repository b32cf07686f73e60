"""Trains the agents of radio slicing in the twin and writes agent files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from allocgym.agents.core import catalogue
from allocgym.envs.core.builder import make_problem
from allocgym.envs.core.errors import unknown

ID = "allocgym:allocgym/PRBSlicing-v0"
TRAINERS = {"ppo": 16, "dqn": 120, "table": 40}
"""Trainers and their default number of iterations (PPO: 65,536 steps; others 12,288 each)."""
NEED = 1
"""Row feature that is the log share of need: demand-proportional is where PPO starts."""


def train_agent(
    out: Path,
    scenario: str,
    trainer: str,
    iterations: int | None = None,
    seed: int = 0,
    overrides: dict[str, Any] | None = None,
    progress: Any = None,
) -> dict[str, Any]:
    """Train an agent, write its file, return what was recorded.

    Args:
        out: agent file.
        scenario: to train in.
        trainer: ``"ppo"`` (set policy, full observation), ``"dqn"`` or ``"table"`` (TRACTOR's
            state and moves).
        iterations: see `TRAINERS`.
        seed: of everything.
        overrides: fields of the scenario.
        progress: told (steps, mean return) by PPO.
    """
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    torch.set_num_threads(1)
    rounds = iterations or TRAINERS[trainer]
    arguments = {"dtype": "float32", **(overrides or {})}
    n_max = len(arguments.get("slices", ("", "", "")))
    problem: Any = make_problem("prb-slicing", n_max=n_max)
    if trainer == "ppo":
        from allocgym.agents.core.sb3 import train_ppo

        arguments.setdefault("horizon", 64)
        env: Any = gym.make_vec(ID, num_envs=512, scenario=scenario, **arguments).unwrapped
        policy, information = train_ppo(
            env,
            65_536 * rounds,
            seed,
            skip={NEED: 1 / problem.kappa},
            gamma=0.95,
            n_steps=32,
            progress=progress,
        )
        weights, settings, kind = policy.state_dict(), policy.settings, "set-policy"
    else:
        from allocgym.agents.prb_slicing import tractor

        arguments.setdefault("horizon", 120)
        env = gym.make_vec(
            ID, num_envs=256, scenario=scenario, tractor_compat=True, **arguments
        ).unwrapped
        steps = 48 * rounds
        if trainer == "dqn":
            network, information = tractor.train_dqn(env, steps, seed)
            weights, settings, kind = network.state_dict(), network.settings, "dqn"
        else:
            table, information = tractor.train_table(env, steps, seed)
            weights, settings, kind = {"table": torch.as_tensor(table)}, {}, "table"
    information |= {"scenario": scenario, "overrides": {k: str(v) for k, v in arguments.items()}}
    catalogue.save(out, problem, kind, settings, weights, information)
    return information
