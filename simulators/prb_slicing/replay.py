"""Replay of a recorded deployment: the KPIs that came, whatever is decided now.

For calibration and off-policy checks only: nothing an agent does changes what comes back, so no
score of a replay says how good a policy is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.journal import Journal
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import KINDS, SlicingOutcome


class Replay(Backend[SlicingOutcome, Shares]):
    """Plays the outcomes in a run folder's journal.

    Args:
        problem: radio slicing.
        folder: run folder with ``journal.jsonl``.
        scenario: name to show.
        num_envs: 1.

    Raises:
        AllocgymError: no journal there, or one of other shapes.
    """

    def __init__(
        self, problem: PRBSlicing, folder: str | Path, scenario: Any = "recorded", num_envs: int = 1
    ) -> None:
        if num_envs != 1:
            raise AllocgymError(f"num_envs: a recording is one cell, given {num_envs}")
        path = Path(folder) / "journal.jsonl"
        if not path.exists():
            raise AllocgymError(f"replay: no journal in {folder}")
        journal = Journal(path)
        self._recorded = [
            SlicingOutcome.from_json(e["data"]) for e in journal.entries if e["kind"] == "outcome"
        ]
        journal.close()
        if len(self._recorded) < 2:
            raise AllocgymError(f"replay: {path} holds no finished period")
        first = self._recorded[0].instance
        if first.present.shape[1] != problem.n_max:
            raise AllocgymError(
                f"n_max: {first.present.shape[1]} rows were recorded, given {problem.n_max}"
            )
        present = first.present[0]
        self._budget_ = int(first.budget[0]) * (len(self._recorded) - 1)
        super().__init__(
            Spec(
                problem=problem.id,
                scenario=str(scenario),
                backend="replay",
                claimants=tuple(KINDS[k] for k in first.kind[0][present]),
                n_max=problem.n_max,
                unit="group of resource blocks",
                horizon=len(self._recorded) - 1,
                batch_size=1,
            ),
            problem,
        )

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> SlicingOutcome:
        self._at = 0
        return self._recorded[0]

    def _spend(self, decision: Shares) -> SlicingOutcome:
        self._at += 1
        outcome = self._recorded[self._at]
        outcome.done = np.array([self._at == len(self._recorded) - 1])
        return outcome

    def _budget(self) -> np.ndarray:
        return np.array([self._budget_])
