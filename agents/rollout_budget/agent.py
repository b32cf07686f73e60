"""Rules as agents: decide for a batch of episodes on any back end."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.agents.rollout_budget.rules import Rule
from allocgym.agents.rollout_budget.view import View, view_of
from allocgym.envs.core.contracts import Shares
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import RolloutOutcome


class RuleAgent(Agent[RolloutOutcome, Shares]):
    """A `Rule` behind ``begin``, ``tell``, ``ask``."""

    problem: RolloutBudget

    def __init__(self, problem: RolloutBudget, rule: Rule) -> None:
        super().__init__(problem)
        self.rule = rule
        self.name = rule.name

    def peek(self, backend: Any) -> None:
        """See `Rule.peek`."""
        self.rule.peek(backend)

    def _start(self) -> None:
        self._view: View | None = None
        self._begun = False

    def _heard(self) -> None:
        outcome = self.outcome
        if not self._begun:
            self.rule.begin(len(outcome.step))
            self._begun = True
        elif self._view is not None and not outcome.round.any():
            self.rule.heard(self._view, outcome.tried, outcome.right)

    def ask(self) -> Shares:
        """Decide the coming round."""
        self._view = self.view()
        return Shares(np.asarray(self.rule.units(self._view), np.int64))

    def view(self) -> View:
        """What the rule sees now."""
        return view_of(self.problem, self.memory, self.seed)

    @property
    def loss_weight(self) -> Any:
        """How the rule's paper weighs groups in the loss."""
        return self.rule.loss_weight
