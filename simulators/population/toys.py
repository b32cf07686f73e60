"""Two toys that tell policies apart: PBT's own, and one that greed loses.

Both are played by `play`, a loop over plain arrays; tests and the suite ``toys`` use them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

START = (0.9, 0.9)
RATE = 0.01
CEILING = 1.2


def true_score(theta: np.ndarray) -> np.ndarray:
    """What is wanted: ``1.2 - |theta|^2`` (Jaderberg et al. 2017, arXiv 1711.09846, figure 2)."""
    return np.asarray(CEILING - (theta**2).sum(-1))


@dataclasses.dataclass(frozen=True)
class Toy:
    """Two workers of PBT's toy: each sees only the surrogate its hyperparameters weight.

    Attributes:
        first: hyperparameters of the workers, ``(workers, 2)``.
        copies: take over the better worker's parameters at every exploit.
        explore: changes hyperparameters after a copy, given them and a generator; None keeps them.
        steps: gradient steps; an exploit every ``interval``.
    """

    first: tuple[tuple[float, float], ...] = ((1.0, 0.0), (0.0, 1.0))
    copies: bool = True
    copy_knobs: bool = True
    explore: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None
    steps: int = 4000
    interval: int = 20

    def play(self, seed: int = 0) -> float:
        """Best true score reached."""
        rng = np.random.default_rng(seed)
        theta = np.tile(np.array(START), (len(self.first), 1))
        knobs = np.array(self.first, float)
        best = true_score(theta).max()
        for step in range(1, self.steps + 1):
            theta = theta - RATE * 2 * knobs * theta
            if self.copies and step % self.interval == 0:
                score = true_score(theta)
                donor = np.full(len(score), score.argmax())  # ties included: one worker leads
                moved = donor != np.arange(len(score))
                theta = theta[donor]
                if self.copy_knobs:
                    knobs = knobs[donor]
                if self.explore is not None:
                    fresh = self.explore(knobs, rng)
                    knobs = np.where(moved[:, None], fresh, knobs)
            best = max(best, true_score(theta).max())
        return float(best)


def multiplicative(knobs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """PBT's usual explore: each knob by 0.8 or 1.2; it cannot leave zero."""
    return knobs * rng.choice([0.8, 1.2], knobs.shape)


def additive(knobs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each knob plus N(0, 0.1), kept in [0, 1]."""
    return np.clip(knobs + rng.normal(0, 0.1, knobs.shape), 0, 1)


def deceptive(
    policy: Callable[[float, int, int], float], periods: int = 50, rise: float = 4.0
) -> float:
    """Final loss of one run whose knob pays now or later: greed lowers it at once and loses.

    A rate ``h`` in [0, 1] is set every period. High rates make lasting progress but hide it behind noise
    ``h / 2`` that vanishes as the rate falls: loss ``= exp(-rise * mean of h so far / 1) + h / 2``. The
    immediate loss is lowest at h = 0, the final one with h = 1 until the last period (an annealed rate in
    miniature, with the exploit of figure 2's greed).

    Args:
        policy: ``(rate now, period, periods) -> rate``.
        periods: decisions.
        rise: how much the progress is worth.
    """
    rate, progress = 1.0, 0.0
    for period in range(periods):
        rate = float(np.clip(policy(rate, period, periods), 0.0, 1.0))
        progress += rate / periods
    return float(np.exp(-rise * progress) + rate / 2)
