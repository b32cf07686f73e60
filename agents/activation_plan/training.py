"""Trainers of activation plans."""

from __future__ import annotations

import dataclasses

from allocgym.agents.core.training import Trained, Training
from allocgym.envs.core.errors import missing_extra
from allocgym.envs.core.registry import entry


def by_masked_ppo(training: Training) -> Trained:
    """Masked PPO on the set encoder; an iteration is an environment step.

    Where no other scenario is asked for it trains on ``"mixed"``, which has links of several speeds.
    """
    try:
        from allocgym.agents.core import masked_ppo
    except ImportError as error:
        raise missing_extra("sb3-contrib", "learn") from error
    if training.scenario == entry(training.problem).scenario:
        training = dataclasses.replace(training, scenario="mixed")
    trained = masked_ppo.trained(training)
    trained.information["trained on"] = training.scenario
    return trained
