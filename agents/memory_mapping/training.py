"""Trainers of memory mapping."""

from __future__ import annotations

from typing import Any

from allocgym.agents.core.training import Trained, Training
from allocgym.envs.core.errors import missing_extra
from allocgym.envs.core.scenario import check_kind, check_numbers

FRACTIONS = (0.2, 0.3, 0.5, 0.65, 0.8)
"""Capacities over a program's peak that agents are trained on."""


def by_evolution(training: Training) -> Trained:
    """CMA-ES on priorities, for the order game; an iteration is a generation of each member.

    Takes ``members``, rules in the portfolio (1 to 64).
    """
    from allocgym.agents.memory_mapping.priority import train

    members = training.take("members", 4)
    check_kind("members", "int", members)
    check_numbers("members", members, 1, 64)
    backend: Any = training.build(1, order=True, fractions=FRACTIONS)
    policy, information = train(
        backend.pairs,
        members,
        training.iterations,
        training.seed,
        training.progress,
        training.checkpoint,
    )
    return Trained(policy, backend.problem, information)


def by_masked_ppo(training: Training) -> Trained:
    """Masked PPO on the set encoder, for the segment game; an iteration is an environment step."""
    try:
        from allocgym.agents.core import masked_ppo
    except ImportError as error:
        raise missing_extra("sb3-contrib", "learn") from error
    return masked_ppo.trained(training, fractions=FRACTIONS)
