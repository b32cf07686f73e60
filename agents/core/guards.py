"""Limits on what an agent may do to a real run; each intervention is said and counted."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.envs.core.contracts import Outcome, Shares
from allocgym.envs.core.errors import AllocgymError


@dataclasses.dataclass
class Verdict:
    """A decision after the guards, what they changed, and what had been proposed."""

    decision: Any
    interventions: tuple[str, ...] = ()
    proposed: Any = None


@dataclasses.dataclass
class Guards:
    """What stands between an agent and a run.

    Attributes:
        fallback: decides where the agent cannot (NaN, an exception, a missing metric).
        max_change: largest change of any share from one period to the next, in (0, 1].
        max_seconds: stop the run before a period once this many charged seconds are spent.
        max_cost: stop the run once this many budget units are spent.
    """

    fallback: Agent | None = None
    max_change: float | None = None
    max_seconds: float | None = None
    max_cost: float | None = None

    def __post_init__(self) -> None:
        if self.max_change is not None and not 0 < self.max_change <= 1:
            raise AllocgymError(f"max_change: a number in (0, 1] expected, given {self.max_change}")

    @property
    def fallbacks(self) -> list[Agent]:
        """The fall-back agent, if any, as a list."""
        return [self.fallback] if self.fallback else []

    def apply(self, agent: Agent, outcome: Outcome, previous: Any) -> Verdict:
        """Ask the agent, and step in where needed.

        Raises:
            AllocgymError: the agent failed and there is no fall-back.
        """
        notes: list[str] = []
        proposed = None
        if not outcome.valid.all() and self.fallback is not None:
            decision = self.fallback.ask()
            notes.append(f"metric missing: {self.fallback.name} decided")
        else:
            try:
                decision = agent.ask()
                agent.problem.check(decision, agent.memory)
            except Exception as error:  # a policy is foreign code
                if self.fallback is None:
                    raise
                decision = self.fallback.ask()
                notes.append(f"{agent.name} failed ({error}): {self.fallback.name} decided")
        if self.max_change is not None and previous is not None and isinstance(decision, Shares):
            proposed = decision
            decision, moved = self._slow_down(agent, decision, previous)
            if moved:
                notes.append(f"change limited to {self.max_change:g}")
            else:
                proposed = None
        return Verdict(decision, tuple(notes), proposed)

    def _slow_down(self, agent: Agent, decision: Shares, previous: Shares) -> tuple[Shares, bool]:
        """Go only part of the way, so that every share keeps its direction and none jumps."""
        before, after = previous.fractions, decision.fractions
        jump = np.abs(after - before).max(1, keepdims=True)
        assert self.max_change is not None
        part = np.minimum(1.0, self.max_change / np.maximum(jump, 1e-12))
        if (part >= 1).all():
            return decision, False
        problem: Any = agent.problem
        return problem.round(before + part * (after - before), agent.memory), True

    def stop_reason(self, seconds: float, cost: float) -> str | None:
        """Return why the run should stop now, or None."""
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"max_seconds {self.max_seconds:g} reached"
        if self.max_cost is not None and cost >= self.max_cost:
            return f"max_cost {self.max_cost:g} reached"
        return None
