"""Trainers of radio slicing."""

from __future__ import annotations

from typing import Any

import torch

from allocgym.agents.core.training import Trained, Training
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.prb_slicing.observation import ROW_FEATURES

NEED = ROW_FEATURES.index("log need share x n")
"""Demand-proportional, a linear term of this, is where PPO starts."""
STEPS = 65_536
"""Of environments, in an iteration of PPO."""
ROUND = 48
"""Steps of the vector environment in an iteration of the others."""


def by_ppo(training: Training) -> Trained:
    """PPO of Stable-Baselines3 on the set policy; an iteration is 65,536 steps in 512 environments."""
    from allocgym.agents.core import sb3

    torch.set_num_threads(1)
    backend: Any = training.build(512, dtype="float32", horizon=64)
    policy, information = sb3.train_ppo(
        AllocationVectorEnv(backend=backend),
        STEPS * training.iterations,
        training.seed,
        skip={NEED: 1 / backend.problem.kappa},
        gamma=0.95,
        n_steps=32,
        checkpoint=training.checkpoint,
        progress=lambda steps, score: training.progress(steps // STEPS, score),
    )
    return Trained(policy, backend.problem, information)


def by_dqn(training: Training) -> Trained:
    """DQN on TRACTOR's state and moves; an iteration is 12,288 steps in 256 environments."""
    from allocgym.agents.prb_slicing.tractor import DQNAgent, train_dqn

    env = _moving(training)
    network, information = train_dqn(
        env,
        ROUND * training.iterations,
        training.seed,
        checkpoint=training.checkpoint,
        progress=lambda steps, score: training.progress(steps // ROUND, score),
    )
    return Trained(DQNAgent(env.problem, network), env.problem, information)


def by_table(training: Training) -> Trained:
    """Tabular Q on TRACTOR's state and moves; iterations as of `by_dqn`."""
    from allocgym.agents.prb_slicing.tractor import TableAgent, train_table

    env = _moving(training)
    table, information = train_table(
        env, ROUND * training.iterations, training.seed, checkpoint=training.checkpoint
    )
    return Trained(TableAgent(env.problem, table), env.problem, information)


def _moving(training: Training) -> Any:
    """256 environments with TRACTOR's state, moves and score."""
    torch.set_num_threads(1)
    return AllocationVectorEnv(
        backend=training.build(256, dtype="float32", horizon=120, tractor_compat=True)
    )
