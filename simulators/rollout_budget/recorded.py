"""Recorded runs as arrays: public per-prompt trajectories and runs of the tiny real back end."""

from __future__ import annotations

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.simulators.core import public_data

TRAJECTORIES = "rollouts/one_shot_rlvr_acc_step_500.json"
RUNS = "rollouts/tiny_rlvr_runs.jsonl.gz"
PROMPTS_PER_CELL = 200
CELL_FAMILIES = (0,) * 4 + (1,) * 3 + (2,) * 2 + (3,) * 6 + (4,) * 6
"""Families of the 21 cells of the recorded runs: addition, multiplication, modular, sort, reverse."""


def trajectories() -> np.ndarray:
    """Group accuracies of the public trajectories, ``(prompts, visits)``, cut to equal length.

    Qwen2.5-Math-1.5B, GRPO, 500 steps, groups of 8 (One-Shot-RLVR, arXiv 2504.20571).
    """
    raw = json.loads(public_data.path(TRAJECTORIES).read_text())
    visits = min(len(v) for v in raw.values())
    return np.array([v[:visits] for v in raw.values()], float)


@dataclasses.dataclass(eq=False)
class Run:
    """One recorded run.

    Attributes:
        policy: name of the allocator.
        seed: of the run (runs of one seed saw the same prompts in the same order).
        ids: ``(steps, m)`` prompts.
        tried: ``(steps, m)`` rollouts.
        right: ``(steps, m)`` successes.
        logged: ``(points,)`` steps at which accuracy was measured.
        accuracy: ``(points,)`` held-out accuracy.
        cells: ``(points, cells)`` held-out accuracy by cell.
        by_prompt: the loss weighted prompts, not rollouts, equally.
        families: family of each cell.
        cell: ``(steps, m)`` cell of each row.
    """

    policy: str
    seed: int
    ids: np.ndarray
    tried: np.ndarray
    right: np.ndarray
    logged: np.ndarray
    accuracy: np.ndarray
    cells: np.ndarray
    by_prompt: bool
    families: tuple[int, ...]
    cell: np.ndarray

    @property
    def name(self) -> str:
        """Policy with its loss weighting."""
        return self.policy + (", prompt-weighted" if self.by_prompt else "")

    @property
    def curve(self) -> float:
        """Area under the held-out accuracy, mean over the run (trapezoid)."""
        span = self.logged[-1] - self.logged[0]
        return float(np.trapezoid(self.accuracy, self.logged) / span)


NAMES = {"egr": "posterior-greedy", "knapsack": "knapsack-beta", "seq": "sequential"}


def tiny_runs(path: Path | None = None) -> list[Run]:
    """The recorded runs of a 105k-parameter character transformer (see the data's notes)."""
    file = path or public_data.path(RUNS)
    out = []
    with gzip.open(file, "rt") as lines:
        for line in lines:
            raw: dict[str, Any] = json.loads(line)
            ids = np.array([t[0] for t in raw["traj"]])
            out.append(
                Run(
                    policy=NAMES.get(raw["pol"], raw["pol"]),
                    seed=int(raw["seed"]),
                    ids=ids,
                    tried=np.array([t[1] for t in raw["traj"]]),
                    right=np.array([t[2] for t in raw["traj"]]),
                    logged=np.array([x[0] for x in raw["log"]]),
                    accuracy=np.array([x[2] for x in raw["log"]]),
                    cells=np.array([x[3] for x in raw["log"]]),
                    by_prompt=raw["norm"] == "prompt",
                    families=CELL_FAMILIES,
                    cell=ids // PROMPTS_PER_CELL,
                )
            )
    return out
