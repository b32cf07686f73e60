"""A Problem and an Agent make a controller: decisions for somebody else's training loop.

The journal is the truth. Every outcome told and every decision given is on disk before the call
returns, so the process may die between ``ask`` and ``tell`` and be started again: ``ask`` then
returns the same decision under the same idempotency key, and nothing is decided twice.

Nothing of the past is held in memory but the latest outcome and decision and a few sums. Every
`SNAPSHOT` periods the state of agents and sums is saved beside the journal (``snapshot.json``), so that
a long run is taken up by telling the agents the rest alone. A snapshot is only a short cut: one that is
missing, damaged or does not belong to the journal is passed over, and all of the journal is told.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from allocgym.agents.core import agent_state, outcome_check
from allocgym.agents.core.agent import Agent
from allocgym.agents.core.guards import OTHER, SHADOW, Event, Guards, Listener, Verdict
from allocgym.agents.core.history import History, Keyed
from allocgym.envs.core.contracts import Outcome, Spec
from allocgym.envs.core.errors import AllocgymError, OutOfBudgetError
from allocgym.envs.core.journal import Journal, dumps, write_json
from allocgym.envs.core.untrusted import loads

__all__ = ["SNAPSHOT", "Controller", "Keyed"]

SNAPSHOT = 256


class Controller:
    """Steers one run through ``tell`` and ``ask``.

    Args:
        agent: who decides.
        spec: the run (claimants, horizon, unit).
        folder: where ``journal.jsonl`` is kept; an existing one is taken up again. It is owned until
            `close`, or the end of the process.
        seed: of the agent.
        guards: limits on what it may decide.
        incumbent: with one, the agent only proposes and ``incumbent`` acts (shadow mode).

    Attributes:
        history: outcomes and decisions, read from the journal when asked for.
        memory: the problem's memory of the run; None before the first outcome.
        seconds: charged so far.
        spent: budget units so far.
        counts: events by kind.

    Raises:
        OwnedError: another process steers the run in this folder.
        CorruptFileError: the journal is damaged, or of something else.
        AllocgymError: the agent cannot begin and there is no fall-back.
    """

    def __init__(
        self,
        agent: Agent,
        spec: Spec,
        folder: Path | str,
        seed: int = 0,
        guards: Guards | None = None,
        incumbent: Agent | None = None,
    ) -> None:
        self.agent = agent
        self.problem = agent.problem
        self.spec = spec
        self.seed = seed
        self.guards = guards or Guards()
        self.incumbent = incumbent
        self.guards.check(self.problem)
        self._agent = Listener(agent)
        self._incumbent = None if incumbent is None else Listener(incumbent)
        spare = self.guards.fallback
        self._fallback = None if spare is None else Listener(spare)
        everyone = (self._agent, self._incumbent, self._fallback)
        self._everyone = [one for one in everyone if one is not None]
        self._outcome: Outcome | None = None
        self._keyed: Keyed | None = None
        self.memory: Any = None
        self.seconds = 0.0
        self.spent = 0
        self.counts: Counter[str] = Counter()
        self.journal = Journal(Path(folder) / "journal.jsonl")
        try:
            self.history = History(self.problem, self.journal)
            self._begin()
            self._resume()
        except BaseException:
            self.close()
            raise

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """Outcomes told: the first before training, then one a period."""
        return self.history.outcomes

    @property
    def decisions(self) -> Sequence[Keyed]:
        """Decisions given, each with its key."""
        return self.history.decisions

    @property
    def waiting(self) -> bool:
        """Whether a decision has been given whose outcome has not been told."""
        return len(self.journal) > 0 and len(self.journal) % 2 == 0

    @property
    def stopped(self) -> str | None:
        """Why the guards allow no further period, or None."""
        return self.guards.stop_reason(self.seconds, self.spent)

    def tell(self, outcome: Outcome) -> None:
        """Report what came back: the state before training first, then after every period.

        Raises:
            AllocgymError: nothing is outstanding, or the outcome cannot be right; nothing is written
                or changed then, and the right one may be told.
        """
        if len(self.journal) % 2:
            raise AllocgymError("tell: ask() for a decision first; nothing is outstanding")
        decision = None if self._keyed is None else self._keyed.decision
        outcome_check.check(
            outcome, self.problem, self.spec, self._outcome, decision, len(self.decisions)
        )
        memory = self._remember(outcome, checked=True)
        self.journal.append({"kind": "outcome", "data": outcome.to_json()})
        self._take(outcome, memory)
        if len(self.outcomes) % SNAPSHOT == 0:
            self._snapshot()

    def ask(self) -> Keyed:
        """Return the decision for the coming period; asked twice, the same one.

        Raises:
            AllocgymError: before the first outcome, after the last, or where an agent failed and there
                is nobody to take over.
            OutOfBudgetError: a limit of the guards allows no further period.
        """
        if self._outcome is None:
            raise AllocgymError("ask: tell() the outcome before training first")
        if self.waiting and self._keyed is not None:
            return self._keyed
        if self._outcome.done.all():
            raise AllocgymError("ask: the run is over; nothing is left to decide")
        if self.stopped:
            raise OutOfBudgetError(f"ask: {self.stopped}")
        verdict = self._decide()
        cost = int(self.problem.cost(verdict.decision)[0])
        reason = self.guards.stop_reason(self.seconds, self.spent, cost)
        if reason:
            raise OutOfBudgetError(f"ask: {reason}")
        period = len(self.decisions)
        keyed = Keyed(verdict.decision, f"period-{period}", period, verdict.events)
        proposed = verdict.proposed
        self.journal.append(
            {
                "kind": "decision",
                "key": keyed.key,
                "data": verdict.decision.to_json(),
                "interventions": list(verdict.interventions),
                "events": [event.kind for event in verdict.events],
                "proposed": None if proposed is None else proposed.to_json(),
            }
        )
        self._give(keyed)
        return keyed

    def close(self) -> None:
        """Close the journal and give up the folder. Idempotent."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        for one in self._everyone:
            one.begin(self.spec, self.seed)
        failure = self._agent.failure
        if failure is not None and self._fallback is None:
            if isinstance(failure, AllocgymError):
                raise failure
            raise AllocgymError(
                f"agent {self.agent.name!r} cannot begin ({failure}) and there is no fallback"
            ) from failure

    def _decide(self) -> Verdict:
        latest, memory, spare = self._outcome, self.memory, self._fallback
        assert latest is not None
        previous = None if self._keyed is None else self._keyed.decision
        period = 0 if self._keyed is None else self._keyed.period + 1
        verdict = self.guards.apply(self._agent, latest, previous, memory, spare, period)
        if self._incumbent is None:
            return verdict
        acted = self.guards.stand_in(self._incumbent, latest, memory, spare, period)
        shadow = Event(period, SHADOW, "shadow: the incumbent acted")
        return Verdict(acted.decision, (*verdict.events, *acted.events, shadow), verdict.decision)

    def _remember(self, outcome: Outcome, checked: bool = False) -> Any:
        """Return the problem's memory with an outcome, without taking it over yet."""
        told = outcome_check.repaired(outcome, self._outcome)
        # Impossible measurements, such as a loss of 0 bits, are refused in a sentence.
        with np.errstate(all="ignore"):
            if self.memory is None:
                memory: Any = self.problem.begin(told)
            else:
                memory = self.problem.update(self.memory, told)
            if checked and outcome.valid.all():
                outcome_check.check_memory(self.problem, self.memory, memory)
        return memory

    def _take(self, outcome: Outcome, memory: Any) -> None:
        """Tell everybody what is on disk."""
        told = outcome_check.repaired(outcome, self._outcome)
        self._outcome = told
        self.memory = memory
        self.seconds += float(outcome.seconds[0])
        self.spent += int(outcome.spent[0])
        for one in self._everyone:
            one.tell(told)

    def _give(self, keyed: Keyed) -> None:
        self._keyed = keyed
        self.counts.update(event.kind for event in keyed.events)

    def _resume(self) -> None:
        """Bring agents and sums to where the journal says they were."""
        for item in self.history.read(self._load_snapshot()):
            if isinstance(item, Keyed):
                self._redecide({event.kind for event in item.events})
                self._give(item)
            else:
                self._take(item, self._remember(item))

    def _redecide(self, kinds: set[str]) -> None:
        """Move everybody's state along; what was decided is in the journal.

        In shadow mode, and in journals of earlier versions, it is not written who failed.
        """
        if self._incumbent is None and OTHER not in kinds:
            self.guards.again(self._agent, self._fallback, kinds)
            return
        with contextlib.suppress(AllocgymError):
            self._decide()

    @property
    def _snapshot_path(self) -> Path:
        return self.journal.path.with_name("snapshot.json")

    def _stand(self, lines: int) -> dict[str, Any]:
        """What a snapshot must agree with: the journal so far, and who takes part."""
        return {
            "lines": lines,
            "seal": self.journal.seal(lines),
            "agents": [[type(one.agent).__name__, one.name] for one in self._everyone],
            "seed": self.seed,
            "spec": [self.spec.problem, self.spec.scenario, self.spec.backend, self.spec.n_max],
        }

    def _snapshot(self) -> None:
        """Save where everybody stands, if all of it can be written down."""
        states = [agent_state.freeze(one.agent) for one in self._everyone]
        failed = any(one.failure is not None for one in self._everyone)
        if failed or any(state is None for state in states):
            return
        data = {
            "stand": self._stand(len(self.journal)),
            "states": states,
            "outcome": agent_state.freeze_value(self._outcome),
            "memory": agent_state.freeze_value(self.memory),
            "seconds": agent_state.freeze_value(self.seconds),
            "spent": self.spent,
            "counts": dict(self.counts),
        }
        text = dumps(data)
        try:
            write_json(self._snapshot_path, {"checksum": _checksum(text), "data": text})
        except AllocgymError:
            # The run does not depend on it; the journal will say so if the disk is full.
            return

    def _load_snapshot(self) -> int:
        """Take up a snapshot, if there is one to trust; return the line to go on from."""
        try:
            kept = loads(self._snapshot_path.read_text())
            if kept["checksum"] != _checksum(kept["data"]):
                return 0
            data = loads(kept["data"])
            lines = data["stand"]["lines"]
            if lines > len(self.journal) or data["stand"] != self._stand(lines):
                return 0
            outcome = agent_state.thaw_value(data["outcome"])
            memory = agent_state.thaw_value(data["memory"])
            for one, state in zip(self._everyone, data["states"], strict=True):
                agent_state.thaw(one.agent, state)
        except (OSError, ValueError, KeyError, TypeError):
            self._begin()  # whatever was set before it failed
            return 0
        self._outcome, self.memory = outcome, memory
        self.seconds, self.spent = agent_state.thaw_value(data["seconds"]), data["spent"]
        self.counts = Counter(data["counts"])
        self._keyed = self.history.item(lines - 2) if lines > 1 else None
        return int(lines)


def _checksum(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
