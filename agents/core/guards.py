"""Limits on what an agent may do to a real run; each intervention is said and counted."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from allocgym.agents.core import pace
from allocgym.agents.core.agent import Agent
from allocgym.envs.core.contracts import Decision, Outcome, Problem, Shares, Spec
from allocgym.envs.core.errors import AllocgymError

MISSING, FAILED, SLOW = "metric missing", "agent failed", "agent too slow"
LIMITED, FORCED, SHADOW = "change limited", "limit forced", "shadow"
OTHER = "other"  # read from a journal of an earlier version, which has the sentences alone
KINDS = (MISSING, FAILED, SLOW, LIMITED, FORCED, SHADOW, OTHER)


@dataclasses.dataclass(frozen=True)
class Event:
    """One time that a guard stepped in.

    Attributes:
        period: number of the period, from 0.
        kind: one of `KINDS`.
        detail: a sentence that says what was done.
    """

    period: int
    kind: str
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A decision after the guards, what they did, and what had been proposed where it differs."""

    decision: Any
    events: tuple[Event, ...] = ()
    proposed: Any = None

    @property
    def interventions(self) -> tuple[str, ...]:
        """The events as sentences."""
        return tuple(str(event) for event in self.events)


class Listener:
    """An agent whose exceptions wait until it is asked, so that they cannot stop what was measured
    from being written down.
    """  # noqa: D205

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.failure: Exception | None = None
        self._begun = False

    @property
    def name(self) -> str:
        """The agent's."""
        return self.agent.name

    def begin(self, spec: Spec, seed: int) -> None:
        """Begin the agent."""
        try:
            self.agent.begin(spec, seed)
        except Exception as error:  # a policy is foreign code
            self.failure = error
        else:
            self._begun, self.failure = True, None

    def tell(self, outcome: Outcome) -> None:
        """Tell the agent; one that failed is told the next outcome all the same."""
        if not self._begun:
            return
        try:
            self.agent.tell(outcome)
        except Exception as error:  # as above
            self.failure = error
        else:
            self.failure = None

    def ask(self) -> Any:
        """Ask the agent, or raise what it raised before."""
        if self.failure is not None:
            raise self.failure
        return self.agent.ask()


@dataclasses.dataclass
class Guards:
    """What stands between an agent and a run.

    Attributes:
        fallback: decides where the agent cannot: NaN, an exception in ``begin``, ``tell`` or ``ask``,
            a decision of the wrong kind, a missing metric, more than ``max_think`` seconds.
        max_change: largest change of any share from one period to the next, in (0, 1]; the first
            decision is held against the prior, or the even split. Only where shares of the same
            claimants are decided in every period.
        max_seconds: stop the run before a period once this many charged seconds are spent, >= 0.
        max_cost: budget units that the run may spend, >= 0; a decision that would cost more is not
            carried out, and the run stops.
        max_think: seconds that ``ask`` may take, >= 0; needs a fall-back.
        clock: seconds, for ``max_think``.
    """

    fallback: Agent | None = None
    max_change: float | None = None
    max_seconds: float | None = None
    max_cost: float | None = None
    max_think: float | None = None
    clock: Callable[[], float] = time.perf_counter

    def __post_init__(self) -> None:
        if self.max_change is not None and not 0 < self.max_change <= 1:
            raise AllocgymError(f"max_change: a number in (0, 1] expected, given {self.max_change}")
        for name in ("max_seconds", "max_cost", "max_think"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise AllocgymError(f"{name}: a number >= 0 expected, given {value}")
        if self.max_think is not None and self.fallback is None:
            raise AllocgymError("max_think: a fallback that acts instead expected, given none")

    def check(self, problem: Problem) -> None:
        """Refuse limits that mean nothing on a problem.

        Raises:
            AllocgymError: ``max_change`` where no shares of the same claimants are decided.
        """
        if self.max_change is not None:
            pace.check(problem)

    def apply(
        self,
        agent: Agent | Listener,
        outcome: Outcome,
        previous: Any,
        memory: Any = None,
        fallback: Listener | None = None,
        period: int = 0,
    ) -> Verdict:
        """Ask the agent, and step in where needed.

        Args:
            agent: who decides.
            outcome: the latest.
            previous: the decision before, None for the first.
            memory: the problem's own; the agent's where it is not given.
            fallback: the fall-back as a `Listener`.
            period: number of the period, for the events.

        Raises:
            AllocgymError: the agent failed, and there is no fall-back or it failed too.
        """
        watched = agent if isinstance(agent, Listener) else Listener(agent)
        spare = fallback or (Listener(self.fallback) if self.fallback else None)
        problem = watched.agent.problem
        memory = watched.agent.memory if memory is None else memory
        decision, events = self._decide(watched, spare, outcome, memory, period)
        if self.max_change is None:
            return Verdict(decision, events)
        paced, kind, detail = pace.limit(problem, decision, previous, memory, self.max_change)
        if kind is None:
            return Verdict(decision, events)
        return Verdict(paced, (*events, Event(period, kind, detail)), decision)

    def stand_in(
        self,
        incumbent: Listener,
        outcome: Outcome,
        memory: Any,
        fallback: Listener | None,
        period: int,
    ) -> Verdict:
        """Ask the incumbent of shadow mode, held to the same rules but ``max_change``."""
        return Verdict(*self._decide(incumbent, fallback, outcome, memory, period))

    def again(self, agent: Listener, fallback: Listener | None, kinds: set[str]) -> None:
        """Ask whoever was asked when a decision of the journal was made, for their state alone.

        Args:
            agent: as in `apply`.
            fallback: as in `apply`.
            kinds: of the events of that decision.
        """
        asked = [] if MISSING in kinds else [agent]
        if fallback is not None and kinds & {MISSING, FAILED, SLOW}:
            asked.append(fallback)
        for one in asked:
            # What it fails with now, it failed with then; that is in the journal.
            with contextlib.suppress(Exception):
                one.ask()

    def _decide(
        self, agent: Listener, spare: Listener | None, outcome: Outcome, memory: Any, period: int
    ) -> tuple[Any, tuple[Event, ...]]:
        """Return a legal decision of the agent, or of the fall-back and why."""
        if not outcome.valid.all() and spare is not None:
            kind, reason = MISSING, "metric missing"
        else:
            begun = self.clock()
            try:
                decision = agent.ask()
                taken = self.clock() - begun
                legal(agent.agent.problem, decision, memory)
            except Exception as error:  # a policy is foreign code
                if spare is None:
                    if isinstance(error, AllocgymError):
                        raise
                    raise AllocgymError(
                        f"agent {agent.name!r} failed ({_said(error)}) and there is no fallback; "
                        f"give one and take the run up again"
                    ) from error
                kind, reason = FAILED, f"{agent.name} failed ({_said(error)})"
            else:
                if self.max_think is None or taken <= self.max_think:
                    return decision, ()
                kind = SLOW
                reason = f"{agent.name} took {taken:.3g} s, {self.max_think:g} s allowed"
        assert spare is not None
        try:
            decision = spare.ask()
            legal(spare.agent.problem, decision, memory)
        except Exception as error:  # as above
            raise AllocgymError(
                f"fallback {spare.name!r} failed too ({_said(error)}), after: {reason}; give another "
                f"one and take the run up again"
            ) from error
        return decision, (Event(period, kind, f"{reason}: {spare.name} decided"),)

    def stop_reason(self, seconds: float, cost: float, coming: float = 0) -> str | None:
        """Return why the run should stop now, or None.

        Args:
            seconds: charged so far.
            cost: budget units spent so far.
            coming: budget units that the next decision costs.
        """
        if self.max_seconds is not None and seconds >= self.max_seconds:
            return f"max_seconds {self.max_seconds:g} reached"
        if self.max_cost is not None and (cost >= self.max_cost or cost + coming > self.max_cost):
            left = f" ({cost:g} spent, the next decision costs {coming:g})" if coming else ""
            return f"max_cost {self.max_cost:g} reached{left}"
        return None


def legal(problem: Problem, decision: Any, memory: Any) -> None:
    """Refuse what is no decision of the problem, or breaks its rules.

    Raises:
        AllocgymError: the wrong type, an array that holds no finite numbers, or `Problem.check`.
    """
    if not isinstance(decision, problem.decision_type):
        raise AllocgymError(
            f"decision: {problem.decision_type.__name__} expected, given {type(decision).__name__}"
        )
    for field in dataclasses.fields(decision):
        value = getattr(decision, field.name)
        if isinstance(value, Decision):
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            raise AllocgymError(f"{field.name}: an array of numbers expected, given {value!r}")
        if value.dtype.kind == "f" and np.isnan(value).any():
            raise AllocgymError(f"{field.name}: numbers expected, given NaN")
    if isinstance(decision, Shares) and (decision.units < 0).any():
        raise AllocgymError(f"units: integers >= 0 expected, given {decision.units.tolist()}")
    problem.check(decision, memory)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
