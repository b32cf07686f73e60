"""A recorded run as a back end: the same outcomes, in order, for the same decisions.

A record cannot say what another decision would have brought. Asked anything else it refuses, or,
with ``off_policy="recorded"``, returns what was recorded: good for checking that an agent reads a
log, never for scoring it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.contracts import Backend, Decision, Outcome, Problem, Spec
from allocgym.envs.core.errors import AllocgymError, FileNeededError, unknown
from allocgym.envs.core.journal import Journal
from allocgym.envs.core.scenario import Scenario

OFF_POLICY = ("error", "recorded")


class Replay(Backend[Outcome, Decision]):
    """Plays back the journal of a deployment, of any problem.

    Args:
        problem: with as many rows as the recorded run had.
        scenario: a name to show.
        folder: run folder that holds ``journal.jsonl``.
        off_policy: ``"error"`` or ``"recorded"``: what to do with a decision that was not taken.

    Raises:
        AllocgymError: no folder given, no journal there, or one of another problem or other shapes.
    """

    batched: ClassVar[bool] = False
    needs: ClassVar[str] = "the folder of a recorded run"

    def __init__(
        self,
        problem: Problem,
        scenario: Scenario,
        folder: str | Path | None = None,
        off_policy: str = "error",
    ) -> None:
        if off_policy not in OFF_POLICY:
            raise unknown("off_policy", off_policy, OFF_POLICY)
        if folder is None:
            raise FileNeededError("folder: the folder of a recorded run expected, none given")
        path = Path(folder) / "journal.jsonl"
        if not path.is_file():
            raise AllocgymError(f"folder: no journal in {folder}")
        journal = Journal.reading(path)
        try:
            self._outcomes = [
                problem.outcome_type.from_json(e["data"])
                for e in journal.entries
                if e["kind"] == "outcome"
            ]
            self._decisions = [
                problem.decision_type.from_json(e["data"])
                for e in journal.entries
                if e["kind"] == "decision"
            ]
        except (TypeError, KeyError) as error:
            raise AllocgymError(f"folder: {path} is no run of {problem.id!r} ({error})") from error
        if len(self._outcomes) < 2:
            raise AllocgymError(f"folder: {path} holds no finished period")
        rows = self._outcomes[0].ready.shape[1]
        if rows != problem.n_max:
            raise AllocgymError(f"n_max: {rows} rows were recorded, given {problem.n_max}")
        self._off_policy = off_policy
        self._at = 0
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend="replay",
            claimants=tuple(f"claimant-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="unit, as recorded",
            horizon=len(self._outcomes) - 1,
            batch_size=1,
        )
        super().__init__(spec, problem)

    @classmethod
    def choose(cls, scenario: Any, changes: Mapping[str, Any]) -> Scenario:
        """See `Backend.choose`: what was recorded is what is played, whatever the scenario."""
        return scenario if isinstance(scenario, Scenario) else Scenario(str(scenario))

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> Outcome:
        self._at = 0
        return self._outcomes[0]

    def _budget(self) -> np.ndarray:
        return np.asarray(sum(o.spent + o.wasted for o in self._outcomes), np.int64)

    def _spend(self, decision: Decision) -> Outcome:
        if self._at + 1 >= len(self._outcomes):
            raise AllocgymError("replay: the record ends here")
        if self._off_policy == "error" and decision != self._decisions[self._at]:
            raise AllocgymError(
                f"replay: period {self._at + 1} was decided otherwise; a record cannot say what that "
                "would have brought (off_policy='recorded' plays on all the same)"
            )
        self._at += 1
        outcome = self._outcomes[self._at]
        # A run that was stopped early ends, played back, where its record does.
        return dataclasses.replace(outcome, done=outcome.done | (self._at == self.spec.horizon))
