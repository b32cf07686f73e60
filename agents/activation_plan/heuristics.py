"""Agents of activation plans: they plan when the episode starts and play the plan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from allocgym.agents.activation_plan.rule import RULES, learned
from allocgym.agents.core.agent import Agent
from allocgym.envs.activation_plan.problem import ActivationOutcome, ActivationPlan
from allocgym.envs.activation_plan.profile import RECOMPUTE, Profile
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.errors import unknown


class Planner(Agent[ActivationOutcome, Choice]):
    """Plays a plan; for what is not legal then, the first action that is."""

    @abstractmethod
    def plan(self, profile: Profile) -> np.ndarray:
        """``(n,)`` keep, recompute or offload for a training step (one row)."""

    def _start(self) -> None:
        self._plans: dict[int, np.ndarray] = {}

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory = self.memory
        pick = np.full(len(memory.step), RECOMPUTE)
        for row in np.flatnonzero(~memory.done).tolist():
            step = int(memory.step[row])
            if step == 0 or row not in self._plans:
                self._plans[row] = self.plan(memory.profile.rows(np.array([row])))
            wanted = int(self._plans[row][step])
            pick[row] = wanted if memory.legal[row, wanted] else int(memory.legal[row].argmax())
        return Choice(np.where(memory.done, -1, pick))


class RulePlanner(Planner):
    """Plans by a rule.

    Args:
        problem: `ActivationPlan`.
        rule: of `rule.RULES`.
    """

    def __init__(self, problem: ActivationPlan, rule: str) -> None:
        super().__init__(problem)
        if rule not in RULES:
            raise unknown("agent", rule, RULES)
        self.name = rule

    def plan(self, profile: Profile) -> np.ndarray:
        """See `Planner.plan`."""
        return RULES[self.name](profile)


class PolicyPlanner(Planner):
    """Plans by a trained policy.

    Args:
        problem: `ActivationPlan`.
        policy: a `SegmentPolicy`.
        name: shown in tables.
    """

    def __init__(self, problem: ActivationPlan, policy: Any, name: str = "learned") -> None:
        super().__init__(problem)
        self.policy, self.name = policy, name

    @classmethod
    def from_file(
        cls, problem: ActivationPlan, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> Self:
        """Rebuild from an agent file."""
        from allocgym.agents.core import segment_policy as segments

        return cls(problem, segments.of(settings, tensors), name)

    def plan(self, profile: Profile) -> np.ndarray:
        """See `Planner.plan`."""
        return learned(profile, self.policy)
