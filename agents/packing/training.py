"""Trainers of packing."""

from __future__ import annotations

from allocgym.agents.core.training import Trained, Training
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import load
from allocgym.envs.core.scenario import check_kind, check_numbers
from allocgym.envs.packing.buffer import Buffers
from allocgym.envs.packing.problem import Packing

SIZES = range(32, 161, 16)
"""Buffers of the instances it is trained on."""


def by_evolution(training: Training) -> Trained:
    """CMA-ES on priorities, on generated instances of several sizes, with and without slack.

    Takes ``members``, rules in the portfolio (1 to 64). The scenario is not asked.
    """
    from allocgym.agents.packing.priority import train

    members = training.take("members", 3)
    check_kind("members", "int", members)
    check_numbers("members", members, 1, 64)
    if training.arguments:
        named = ", ".join(sorted(training.arguments))
        raise AllocgymError(f"{named}: 'members' alone can be set for this trainer")
    generated = load("allocgym.simulators.packing.instance:generated")

    def draw(seed: int) -> Buffers:
        made: Buffers = generated(("tight", "slack")[seed % 2], seed, SIZES[seed % len(SIZES)])
        return made

    policy, information = train(
        draw,
        members,
        training.iterations,
        training.seed,
        checkpoint=training.checkpoint,
        progress=training.progress,
    )
    return Trained(policy, Packing(), information)
