"""The learned index: a dozen numbers, found by CMA-ES in the simulator, for any trainer.

Each prompt's value is ``p^a (1-p)^b u^c / cost^d`` times a family term and a term in progress; its
rollouts go partly by exact greedy on ``value x P(mixed)`` and partly in proportion to the value. The
rule contains uniform, posterior-greedy, Knapsack RL, Neyman's split and their cost-aware versions:
what CMA-ES finds says which of them, or what between them, a situation asks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from allocgym.agents.rollout_budget.agent import RuleAgent
from allocgym.agents.rollout_budget.rules import Rule, by_gains, proportional
from allocgym.agents.rollout_budget.view import View
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.rollout_budget import algebra
from allocgym.envs.rollout_budget.problem import RolloutBudget

TERMS = (
    "exponent of p",
    "exponent of 1 - p",
    "exponent of posterior sd",
    "exponent of cost",
    "family accuracy below the mean",
    "family's recent mixed share",
    "progress x exponent of p",
    "progress x family below the mean",
    "greedy against proportional",
    "floor",
    "least group",
)
START = (0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5, -1.0)
"""Where tuning begins."""


class LearnedIndex(Rule):
    """See the module.

    Args:
        weights: one number for each of `TERMS`.
        name: shown in tables.
        loss_weight: how the loss it was trained for weighs groups.
    """

    def __init__(
        self, weights: Sequence[float], name: str = "learned", loss_weight: str = "rollout"
    ) -> None:
        self.weights = np.asarray(weights, float)
        if self.weights.shape != (len(TERMS),) or not np.isfinite(self.weights).all():
            raise AllocgymError(f"weights: {len(TERMS)} finite numbers expected, given {weights!r}")
        self.name = name
        self.loss_weight = loss_weight

    def value(self, view: View) -> np.ndarray:
        """``(batch, m)`` value of a rollout of each prompt."""
        w = self.weights
        p = np.clip(np.asarray(view.mean, float), 5e-3, 1 - 5e-3)
        now = (view.step / np.maximum(view.horizon, 1))[:, None]
        fam = view.of_family(np.asarray(view.family_accuracy, float))
        gap = view.accuracy[:, None] - fam
        fresh = view.of_family(view.family_mean(view.mixed, view.prompts.astype(float)))
        log = (w[0] + w[6] * now) * np.log(p) + w[1] * np.log1p(-p)
        log = log + w[2] * np.log(np.maximum(view.sd, 1e-3))
        log = log - w[3] * np.log(np.maximum(view.cost, 1e-2))
        log = log + (w[4] + w[7] * now) * 4 * gap + w[5] * 2 * (fresh - 0.5)
        log = np.where(view.prompts > 0, log, -np.inf)
        return np.asarray(np.exp(log - log.max(1, keepdims=True)))

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        w = self.weights
        value = self.value(view)
        blend = float(1 / (1 + np.exp(-2 * w[8])))
        floor = float(1 / (1 + np.exp(-2 * (w[9] - 1))))
        least = int(np.clip(np.round(2 + w[10]), 0, 4))
        even = view.prompts / np.maximum(view.prompts.sum(1, keepdims=True), 1)
        share = view.prompts * value
        share = share / share.sum(1, keepdims=True)
        shares = (1 - floor) * share + floor * even
        if blend < 0.02:
            return proportional(view, shares, least)
        a, b = np.asarray(view.a, float), np.asarray(view.b, float)
        most = int(view.high.max())
        gains = algebra.beta_gains(a, b, most) * value[..., None]
        greedy = by_gains(view, gains, max(least, 1))
        if blend > 0.98:
            return greedy
        whole = view.budget[:, None]
        return proportional(view, blend * greedy / whole + (1 - blend) * shares, 0)


class IndexAgent(RuleAgent):
    """A `LearnedIndex` as an agent that can be kept in a file.

    Args:
        problem: rollout budgets.
        weights: one number for each of `TERMS` (default: where tuning begins).
        name: shown in tables.
    """

    rule: LearnedIndex

    def __init__(
        self, problem: RolloutBudget, weights: Sequence[float] = START, name: str = "learned"
    ) -> None:
        super().__init__(problem, LearnedIndex(weights, name))

    def to_file(self) -> tuple[str, dict[str, Any], None]:
        """Kind, settings and tensors of the agent file."""
        return "learned-index", {"weights": self.rule.weights.tolist()}, None

    @classmethod
    def from_file(
        cls, problem: RolloutBudget, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> Self:
        """Rebuild from an agent file."""
        return cls(problem, settings["weights"], name)
