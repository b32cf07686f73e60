"""Learned priorities: a portfolio of scoring rules for buffers, tuned by CMA-ES."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.evolution import tune
from allocgym.agents.core.portfolio import Portfolio, ranked
from allocgym.agents.packing.order import TRAITS, height, traits
from allocgym.envs.packing.buffer import Buffers
from allocgym.envs.packing.problem import Packing

PRETRAINED = Path(__file__).parent / "pretrained" / "learned.zip"


class Priorities(Portfolio):
    """Orders buffers by learned scores over `order.traits`."""

    kind = "packing-priorities"
    label = "traits"
    columns = TRAITS

    def orders(self, b: Buffers) -> list[np.ndarray]:
        """One order per member."""
        return self.ranked(traits(b))

    def order(self, b: Buffers) -> np.ndarray:
        """The order of least height."""
        return min(self.orders(b), key=lambda o: height(b, o))


def shipped() -> Priorities:
    """The priorities that come with the package."""
    return Priorities.load(PRETRAINED, Packing())


def train(
    draw: Callable[[int], Buffers],
    members: int = 3,
    iterations: int = 60,
    seed: int = 0,
    batch: int = 24,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Priorities, dict[str, Any]]:
    """Tune a portfolio by CMA-ES: the mean height of each instance's best member is minimised.

    Args:
        draw: makes the instance of a seed.
        members: rules in the portfolio.
        iterations: generations.
        seed: of everything.
        batch: instances per candidate.
        checkpoint: where it goes on from, and keeps what it knows.
        progress: called with (generations so far, minus the least mean height).
    """
    kept: dict[int, tuple[Buffers, np.ndarray]] = {}

    def score(parameters: list[float], seeds: np.ndarray) -> float:
        if int(seeds[0]) not in kept:
            kept.clear()
            kept.update({int(s): (b, traits(b)) for s in seeds for b in [draw(int(s))]})
        w = np.array(parameters).reshape(members, -1)
        best = [
            min(height(b, ranked(table, v)) for v in w) / b.capacity
            for b, table in (kept[int(s)] for s in seeds)
        ]
        return float(np.mean(best))

    start = np.zeros((members, len(TRAITS)))
    for m in range(members):
        start[m, (2, 1, 0)[m % 3]] = 1.0  # area, lifetime, size
    first = start.ravel().tolist()
    found, information = tune(
        (checkpoint or Checkpoint()).replayed(score),
        batch,
        first,
        0.4,
        iterations,
        seed,
        progress=progress,
    )
    return Priorities(np.array(found).reshape(members, -1)), information | {"members": members}
