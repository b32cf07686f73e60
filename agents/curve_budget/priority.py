"""A learned priority: few numbers, tuned by CMA-ES on recorded curves."""

from __future__ import annotations

import numpy as np

from allocgym.agents.core.parametric import Parametric
from allocgym.envs.curve_budget.problem import (
    CONTEXT_FEATURES,
    ROW_FEATURES,
    Allotment,
    CurveBudget,
)

LATE = 3
"""So many features, from the first on, also count times the budget used."""


class LinearPriority(Parametric):
    """Units in proportion to the exponential of a linear function of each row's features."""

    problem: CurveBudget
    kind = "linear-priority"
    parameters = (
        *ROW_FEATURES,
        *(f"{name} x budget used" for name in ROW_FEATURES[:LATE]),
        "log concentration",
    )
    start = (-1.0, -1.0, 0.1, 0.0, 0.0, 0.0, 1.0, *[0.0] * 5, 0.5)
    candidates = 12

    def price(self) -> float:
        """Log time to target; a miss counts as twice the budget."""
        memory = self.memory
        most = 2 * memory.outcome.instance.total
        return float(np.log(np.minimum(memory.reached, most)).mean())

    def ask(self) -> Allotment:
        """See `Agent.ask`."""
        seen = self.problem.encode(self.memory)
        rows, p = seen["claimants"].astype(float), self.weights
        used = 1 - seen["context"][:, CONTEXT_FEATURES.index("budget left")].astype(float)
        k = len(ROW_FEATURES)
        value = rows @ p[:k] + used[:, None] * (rows[..., :LATE] @ p[k : k + LATE])
        value = np.where(self.problem.room(self.outcome) > 0, value, -np.inf)
        top = value.max(1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        sharpness = np.exp(np.clip(p[-1], -3, 3))
        return self.problem.divide(np.exp(np.clip(sharpness * (value - top), -30, 0)), self.memory)
