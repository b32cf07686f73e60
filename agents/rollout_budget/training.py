"""Trainers of rollout budgets."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.evolution import tune
from allocgym.agents.core.training import Trained, Training
from allocgym.agents.rollout_budget.learned import START, IndexAgent
from allocgym.envs.core.builder import build
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.core.errors import unknown
from allocgym.envs.core.registry import entry, load
from allocgym.envs.core.scenario import choose
from allocgym.envs.rollout_budget import curves

SHORT = 0.5
"""Episodes are this much shorter in training (the same gain in fewer, larger steps)."""
BATCH, CANDIDATES, SPREAD = 16, 8, 0.4
"""Of CMA-ES: episodes, candidates of a generation, first step size."""
REFERENCE = 2**39 + np.arange(24)
"""Seeds on which uniform says where the axis ends."""
FINAL, RIDGE = 0.3, 2e-5
"""What the final accuracy counts beside the area, and the weak pull to simple rules: what does not pay
should vanish."""


def by_evolution(training: Training) -> Trained:
    """CMA-ES on the learned index, per prompt.

    Takes ``axis``, what the area under the accuracy is measured over: ``"rollouts"``, ``"tokens"`` or
    ``"seconds"``; further arguments are fields of the scenario.
    """
    axis = training.take("axis", "rollouts")
    if axis not in curves.AXES:
        raise unknown("axis", axis, curves.AXES)
    asked = choose(load(entry(training.problem).scenarios), training.scenario, training.arguments)
    short = dataclasses.replace(asked, horizon=max(int(asked.horizon * SHORT), 2), high=64)
    # Room to be cheap: the axis ends where uniform is after the horizon.
    scenario = short.stretched(curves.LONGER)

    def backend(num_envs: int) -> Any:
        return build(
            training.problem, "twin", scenario, num_envs, n_max=scenario.rows, mode="per_prompt"
        )

    def play(agent: Any, on: Any, seeds: np.ndarray) -> dict[str, np.ndarray]:
        return curves.curves(rollout(agent, on, seeds))

    reference = backend(len(REFERENCE))
    even = play(catalogue.make("uniform", reference.problem), reference, REFERENCE)
    limit = np.full(BATCH, even[axis][:, short.horizon].mean())
    trained = backend(BATCH)

    def price(weights: list[float], seeds: np.ndarray) -> float:
        data = play(IndexAgent(trained.problem, weights), trained, seeds)
        score = curves.area(data[axis], data["accuracy"], limit)
        score = score + FINAL * curves.at(data[axis], data["accuracy"], limit)
        return -float(score.mean()) + RIDGE * float(np.square(weights).sum())

    weights, information = tune(
        training.checkpoint.replayed(price),
        BATCH,
        START,
        SPREAD,
        training.iterations,
        training.seed,
        CANDIDATES,
        training.progress,
    )
    return Trained(
        IndexAgent(trained.problem, weights), trained.problem, {**information, "axis": axis}
    )


def by_ppo(training: Training) -> Trained:
    """PPO of Stable-Baselines3 on the set policy, on bins; an iteration is two episodes of 512
    environments.
    """  # noqa: D205
    from allocgym.agents.core.sb3 import train_ppo

    backend = training.build(512)
    once = 2 * 512 * backend.spec.horizon
    policy, information = train_ppo(
        AllocationVectorEnv(backend=backend),
        training.iterations * once,
        training.seed,
        progress=lambda steps, score: training.progress(steps // once, score),
        checkpoint=training.checkpoint,
    )
    return Trained(policy, backend.problem, information)
