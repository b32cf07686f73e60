"""Replay of a recorded deployment: the KPIs that came, whatever is decided now.

For calibration and off-policy checks only: nothing an agent does changes what comes back, so no
score of a replay says how good a policy is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.journal import Journal
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import KINDS, SlicingOutcome
from allocgym.envs.prb_slicing.scenario import SCENARIOS, SlicingScenario


class Replay(Backend[SlicingOutcome, Shares]):
    """Plays the outcomes in a run folder's journal.

    Args:
        problem: radio slicing, with as many rows as the recorded run had.
        scenario: gives the name to show.
        folder: run folder with ``journal.jsonl``.

    Raises:
        AllocgymError: no journal there, or one of other shapes.
    """

    scenarios: ClassVar[Mapping[str, SlicingScenario]] = SCENARIOS
    batched: ClassVar[bool] = False

    def __init__(
        self, problem: PRBSlicing, scenario: SlicingScenario, folder: str | Path = ""
    ) -> None:
        if not str(folder):
            raise AllocgymError(
                "folder: the run folder of a recorded deployment expected, none given"
            )
        path = Path(folder) / "journal.jsonl"
        if not path.exists():
            raise AllocgymError(f"folder: no journal in {folder}")
        journal = Journal(path)
        journal.close()
        try:
            self._recorded = [
                SlicingOutcome.from_json(e["data"])
                for e in journal.entries
                if e["kind"] == "outcome"
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise AllocgymError(f"folder: {path} records no radio slicing ({error})") from error
        if len(self._recorded) < 2:
            raise AllocgymError(f"folder: {path} holds no finished period")
        first = self._recorded[0].instance
        if first.present.shape[1] != problem.n_max:
            raise AllocgymError(
                f"n_max: {first.present.shape[1]} rows were recorded, given {problem.n_max}"
            )
        present = first.present[0]
        horizon = len(self._recorded) - 1
        self._granted = int(first.budget[0]) * horizon
        self._at = 0
        super().__init__(
            Spec(
                problem=problem.id,
                scenario=scenario.name,
                backend="replay",
                claimants=tuple(KINDS[k] for k in first.kind[0][present]),
                n_max=problem.n_max,
                unit="group of resource blocks",
                horizon=horizon,
                batch_size=1,
            ),
            problem,
        )

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> SlicingOutcome:
        self._at = 0
        return self._recorded[0]

    def _spend(self, decision: Shares) -> SlicingOutcome:
        self._at += 1
        done = np.array([self._at == len(self._recorded) - 1])
        return dataclasses.replace(self._recorded[self._at], done=done)

    def _budget(self) -> np.ndarray:
        return np.array([self._granted])
