"""Rules as agents: decide for a batch of episodes on any back end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import Agent
from allocgym.agents.rollout_budget.rules import Rule
from allocgym.agents.rollout_budget.view import View, view_of
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import load
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import RolloutOutcome


class RuleAgent(Agent[RolloutOutcome, Shares]):
    """A `Rule` behind ``begin``, ``tell``, ``ask``.

    Args:
        problem: rollout budgets.
        rule: the rule, or where its class is (``"package.module:Class"``).
        arguments: of that class.
    """

    problem: RolloutBudget

    def __init__(self, problem: RolloutBudget, rule: Rule | str, **arguments: Any) -> None:
        super().__init__(problem)
        self.rule: Rule = load(rule)(**arguments) if isinstance(rule, str) else rule
        self.name = self.rule.name
        usual = {"rounds": Rule.rounds, "loss_weight": Rule.loss_weight}
        own = {k: getattr(self.rule, k) for k in usual}
        self.plays = {k: v for k, v in own.items() if v != usual[k]}

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
    def loss_weight(self) -> str:
        """How the rule's paper weighs groups in the loss."""
        return self.rule.loss_weight

    def to_file(self) -> tuple[str, dict[str, Any], None]:
        """Kind, settings and tensors of the agent file: a rule is kept by its name."""
        return self.rule.name, {}, None


def make_rule(name: str | Path) -> Rule:
    """Build a rule from the name of an agent of the catalogue, or from an agent file.

    Raises:
        AllocgymError: neither, or an agent that is no rule.
    """
    made = catalogue.make(name, RolloutBudget(mode="per_prompt"))
    if not isinstance(made, RuleAgent) or made.clairvoyant:
        raise AllocgymError(f"agent: {str(name)!r} is no rule, so no allocator can use it")
    return made.rule
