"""Rows of tasks and what training on one is worth on the others. Drawn, not fitted."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError


@dataclasses.dataclass(frozen=True)
class Row:
    """A distribution of rows of tasks.

    Attributes:
        tasks: n.
        budget: trainings that can be paid for.
        loss: what distance costs, end to end of the row.
        spread: standard deviation of the value of training on a task, over the row. 0 is the control:
            every task is worth the same, and nothing is better than to space trainings evenly.
        smooth: distance along the row over which that value changes.
        noise: standard deviation of every entry.
    """

    tasks: int = 60
    budget: int = 8
    loss: float = 2.0
    spread: float = 0.3
    smooth: float = 0.15
    noise: float = 0.02

    def __post_init__(self) -> None:
        if not 2 <= self.budget <= self.tasks:
            raise AllocgymError(f"budget: 2 to {self.tasks} expected, given {self.budget}")
        for name in ("loss", "smooth"):
            if getattr(self, name) <= 0:
                raise AllocgymError(f"{name}: a number > 0 expected, given {getattr(self, name)}")
        for name in ("spread", "noise"):
            if getattr(self, name) < 0:
                raise AllocgymError(f"{name}: a number >= 0 expected, given {getattr(self, name)}")

    @property
    def slope(self) -> float:
        """What one step along the row costs."""
        return self.loss / self.tasks

    def sample(self, seed: int) -> np.ndarray:
        """Draw ``(n, n)``: row i is what training on task i gives each task."""
        rng = randomness.generator(seed, "row of tasks")
        place = np.arange(self.tasks) / self.tasks
        kernel = np.exp(-((place[:, None] - place) ** 2) / (2 * self.smooth**2))
        root = np.linalg.cholesky(kernel + 1e-8 * np.eye(self.tasks))
        own = 1 + self.spread * (root @ rng.normal(size=self.tasks))
        distance = np.abs(np.arange(self.tasks)[:, None] - np.arange(self.tasks))
        noise = self.noise * rng.normal(size=distance.shape)
        return np.asarray(own[:, None] - self.slope * distance + noise)


SCENARIOS = {"varied": Row(), "control": Row(spread=0.0, noise=0.0)}
