"""Trainers of curve budgets."""

from __future__ import annotations

from allocgym.agents.core.training import Trained, Training
from allocgym.agents.curve_budget.priority import LinearPriority


def by_evolution(training: Training) -> Trained:
    """CMA-ES on the linear priority. Takes ``batch``, environments at once."""
    return LinearPriority.trained(training, training.take("batch", 32))
