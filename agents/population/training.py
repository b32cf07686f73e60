"""Trainers of populations."""

from __future__ import annotations

from typing import Any

from allocgym.agents.core.training import Trained, Training
from allocgym.agents.population.index import IndexController
from allocgym.envs.core.environment import AllocationVectorEnv

BATCH = 256
"""Environments at once, unless ``batch`` says so."""
DONOR, FACTOR, LEVEL = (2.0, 0, 0, 0, 0), (0.0, 1.0, 0.0, -1.0), (-1.0, 0.0, 1.5, 0.0)
"""Logits of an untrained policy: mostly keep, mostly the same knobs, equal steps."""


def by_evolution(training: Training) -> Trained:
    """CMA-ES on the parametric controller. Takes ``batch``, environments at once."""
    return IndexController.trained(training, training.take("batch", BATCH))


def by_ppo(training: Training) -> Trained:
    """PPO of Stable-Baselines3 on the set policy; an iteration is one episode of every environment.

    Takes ``batch``, environments at once.
    """
    from allocgym.agents.core.sb3 import train_ppo

    backend = training.build(training.take("batch", BATCH))
    problem: Any = backend.problem
    horizon = backend.spec.horizon
    once = horizon * backend.spec.batch_size
    policy, information = train_ppo(
        AllocationVectorEnv(backend=backend),
        training.iterations * once,
        training.seed,
        checkpoint=training.checkpoint,
        progress=lambda steps, score: training.progress(steps // once, score),
        n_steps=horizon,
        choices=problem.choices.tolist(),
        first=[*DONOR, *FACTOR * len(problem.knobs), *LEVEL],
        entropy=1e-3,
    )
    return Trained(policy, problem, information)
