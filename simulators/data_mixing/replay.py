"""A recorded run as a back end: the same outcomes, in order, for the same decisions.

A record cannot say what another decision would have brought. Asked anything else it refuses, or,
with ``off_policy="recorded"``, returns what was recorded: good for checking that an agent reads a
log, never for scoring it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.journal import Journal
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingOutcome

OFF_POLICY = ("error", "recorded")


class Replay(Backend[MixingOutcome, Shares]):
    """Plays back the journal of a deployment.

    Args:
        problem: `DataMixing`, with as many rows as the recorded run had.
        folder: run folder that holds ``journal.jsonl``.
        off_policy: ``"error"`` or ``"recorded"``: what to do with a decision that was not taken.
        scenario, num_envs: as every back end takes them; only 1 environment was recorded.
    """

    def __init__(
        self,
        problem: DataMixing,
        folder: str | Path,
        off_policy: str = "error",
        scenario: str = "replay",
        num_envs: int = 1,
    ) -> None:
        if off_policy not in OFF_POLICY:
            raise unknown("off_policy", off_policy, OFF_POLICY)
        if num_envs != 1:
            raise AllocgymError(f"num_envs: 1 recorded run expected, given {num_envs}")
        path = Path(folder) / "journal.jsonl"
        if not path.exists():
            raise AllocgymError(f"folder: no journal in {folder}")
        journal = Journal(path)
        journal.close()
        self._outcomes = [
            MixingOutcome.from_json(e["data"]) for e in journal.entries if e["kind"] == "outcome"
        ]
        self._decisions = [
            Shares.from_json(e["data"]) for e in journal.entries if e["kind"] == "decision"
        ]
        if not self._outcomes or self._outcomes[0].losses.shape[1] != problem.n_max:
            raise AllocgymError(f"{path}: not a data-mixing run with {problem.n_max} rows")
        self._off_policy = off_policy
        self._at = 0
        spec = Spec(
            problem=problem.id,
            scenario=scenario,
            backend="replay",
            claimants=tuple(f"domain-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="as recorded",
            horizon=len(self._outcomes) - 1,
            batch_size=1,
        )
        super().__init__(spec, problem)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> MixingOutcome:
        self._at = 0
        return self._outcomes[0]

    def _budget(self) -> np.ndarray:
        inst = self._outcomes[0].instance
        return inst.budget * inst.horizon

    def _spend(self, decision: Shares) -> MixingOutcome:
        if self._at + 1 >= len(self._outcomes):
            raise AllocgymError("replay: the record ends here")
        same = np.array_equal(decision.units, self._decisions[self._at].units)
        if not same and self._off_policy == "error":
            raise AllocgymError(
                f"replay: period {self._at} was decided otherwise "
                f"({self._decisions[self._at].units[0].tolist()}, "
                f"asked {decision.units[0].tolist()}); a record cannot say what that would bring"
            )
        self._at += 1
        return self._outcomes[self._at]
