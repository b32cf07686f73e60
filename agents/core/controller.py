"""A Problem and an Agent make a controller: decisions for somebody else's training loop.

The journal is the truth. Every outcome told and every decision given is on disk before the call
returns, so the process may die between ``ask`` and ``tell`` and be started again: ``ask`` then
returns the same decision under the same idempotency key, and nothing is decided twice.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from allocgym.agents.core.agent import Agent
from allocgym.agents.core.guards import Guards, Verdict
from allocgym.envs.core.contracts import Decision, Outcome, Spec
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import Journal


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A decision and the key under which it may be carried out once.

    Attributes:
        decision: what to do.
        key: the same after a restart; a training loop that has seen it need not act again.
        period: number of the period, from 0.
        interventions: what the guards changed, in words.
    """

    decision: Any
    key: str
    period: int
    interventions: tuple[str, ...] = ()


class Controller:
    """Steers one run through ``tell`` and ``ask``.

    Args:
        agent: who decides.
        spec: the run (claimants, horizon, unit).
        folder: where ``journal.jsonl`` is kept; an existing one is taken up again.
        seed: of the agent.
        guards: limits on what it may decide.
        incumbent: with one, the agent only proposes and ``incumbent`` acts (shadow mode).
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
        self.guards = guards or Guards()
        self.incumbent = incumbent
        self.journal = Journal(Path(folder) / "journal.jsonl")
        self._everyone = [agent, *([incumbent] if incumbent else []), *self.guards.fallbacks]
        for one in self._everyone:
            one.begin(spec, seed)
        self.outcomes: list[Outcome] = []
        self.decisions: list[Keyed] = []
        self._resume(agent)

    @property
    def waiting(self) -> bool:
        """Whether a decision has been given whose outcome has not been told."""
        return len(self.decisions) == len(self.outcomes) and bool(self.decisions)

    def tell(self, outcome: Outcome) -> None:
        """Report what came back: the state before training first, then after every period."""
        if len(self.outcomes) > len(self.decisions):
            raise AllocgymError("tell: ask() for a decision first; nothing is outstanding")
        self.journal.append({"kind": "outcome", "data": outcome.to_json()})
        self._take(outcome)

    def ask(self) -> Keyed:
        """Return the decision for the coming period; asked twice, the same one."""
        if not self.outcomes:
            raise AllocgymError("ask: tell() the outcome before training first")
        if self.waiting:
            return self.decisions[-1]
        verdict = self._decide()
        period = len(self.decisions)
        keyed = Keyed(verdict.decision, f"period-{period}", period, verdict.interventions)
        self.journal.append(
            {
                "kind": "decision",
                "key": keyed.key,
                "data": verdict.decision.to_json(),
                "interventions": list(verdict.interventions),
                "proposed": None if verdict.proposed is None else verdict.proposed.to_json(),
            }
        )
        self.decisions.append(keyed)
        return keyed

    def _decide(self) -> Verdict:
        previous = self.decisions[-1].decision if self.decisions else None
        verdict = self.guards.apply(self.agent, self.outcomes[-1], previous)
        if self.incumbent is None:
            return verdict
        acted = self.incumbent.ask()
        notes = (*verdict.interventions, "shadow: the incumbent acted")
        return Verdict(acted, notes, proposed=verdict.decision)

    def _take(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        for one in self._everyone:
            one.tell(outcome)

    def _resume(self, agent: Agent) -> None:
        """Bring the agent to where the journal says it was."""
        entries = list(self.journal.entries)
        for number, entry in enumerate(entries):
            if entry["kind"] == "outcome":
                kind = agent.problem.outcome_type
                self._take(kind.from_json(entry["data"]))
            elif entry["kind"] == "decision":
                # Asking again moves a recurrent policy's state along; what counts is the journal.
                self._decide()
                decision: Decision = agent.problem.decision_type.from_json(entry["data"])
                self.decisions.append(
                    Keyed(
                        decision, entry["key"], len(self.decisions), tuple(entry["interventions"])
                    )
                )
            else:
                raise CorruptFileError(
                    f"{self.journal.path}: entry {number + 1} is neither outcome nor decision"
                )
