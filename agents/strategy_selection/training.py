"""Trainers of strategy selection."""

from __future__ import annotations

from allocgym.agents.core.training import Trained, Training
from allocgym.agents.strategy_selection.heuristics import Scored

BATCH = 24
"""Instances on which a candidate is scored."""


def by_evolution(training: Training) -> Trained:
    """CMA-ES on the score of a strategy; an iteration is a generation."""
    return Scored.trained(training, BATCH)
