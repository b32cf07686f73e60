"""What a larger model will score, from smaller ones: tasks grouped by difficulty.

After Xu et al. (arXiv 2502.17262), reduced to its idea. Tasks whose scores move together over model
sizes are grouped; groups that do not move (not learned yet, or luck) are left out; the rest is
extrapolated group by group, and a curve through (0, 0) and (1, 1) maps their mean to that of all tasks.
The form of the fit is recalled, not checked against the paper.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy import optimize

from allocgym.envs.core.errors import AllocgymError, missing_extra


def clusters(scores: np.ndarray, bandwidth: float, smallest: int = 2) -> np.ndarray:
    """Group tasks by mean shift over their scores; -1 for tasks of groups smaller than ``smallest``.

    Args:
        scores: ``(tasks, models)`` of the small models, in order of compute.
        bandwidth: tasks closer than this (Euclidean) may share a group.
        smallest: groups with fewer tasks are outliers.
    """
    try:
        from sklearn.cluster import MeanShift
    except ImportError as error:
        raise missing_extra("scikit-learn", "learn") from error
    labels = np.asarray(MeanShift(bandwidth=bandwidth).fit_predict(scores))
    sizes = np.bincount(labels)
    return np.where(sizes[labels] < smallest, -1, labels)


@dataclasses.dataclass(frozen=True)
class Growth:
    """``g + (1 - g) exp(-a C^-b - c)``: from chance ``g`` towards ``g + (1 - g) exp(-c)``.

    Attributes:
        chance: g, the score of guessing.
        a, b, c: fitted, >= 0.
    """

    chance: float
    a: float
    b: float
    c: float

    def __call__(self, compute: np.ndarray) -> np.ndarray:
        """Score at each compute."""
        return np.asarray(
            self.chance
            + (1 - self.chance) * np.exp(-self.a * np.asarray(compute, float) ** -self.b - self.c)
        )


def fit_growth(compute: np.ndarray, score: np.ndarray, chance: float) -> Growth:
    """Fit `Growth` by bounded least squares; compute in units of its smallest value is best."""

    def error(p: np.ndarray) -> np.ndarray:
        return Growth(chance, *map(float, p))(compute) - score

    starts = [(1.0, 0.3, 0.1), (3.0, 0.6, 0.0), (0.3, 0.15, 0.5)]
    fits = [
        optimize.least_squares(error, s, bounds=([0, 1e-3, 0], [50.0, 3.0, 10.0])) for s in starts
    ]
    return Growth(chance, *map(float, min(fits, key=lambda f: f.cost).x))


def grows(scores: np.ndarray, chance: float, margin: float = 0.02) -> bool:
    """A group's mean ``(models,)`` is above chance at the end, and higher there than it began."""
    return bool(scores[-1] > chance + margin and scores[-1] > scores[0] + margin)


def whole_from_part(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Coefficients of ``x + x (1 - x) (p + q x + r x^2)``, a quartic through (0, 0) and (1, 1).

    Args:
        part: ``(models,)`` mean score of the groups that were kept.
        whole: ``(models,)`` mean score of all tasks.
    """
    base = (part * (1 - part))[:, None] * part[:, None] ** np.arange(3)
    # With few models the shortest correction is taken.
    return np.asarray(np.linalg.lstsq(base, whole - part, rcond=1e-3)[0])


def predict(
    scores: np.ndarray,
    compute: np.ndarray,
    target: float,
    chance: np.ndarray,
    bandwidth: float,
    smallest: int = 2,
) -> float:
    """Mean score of all tasks at a compute beyond what was measured.

    Args:
        scores: ``(tasks, models)``, models in order of compute.
        compute: ``(models,)``, > 0.
        target: compute of the model that is asked about.
        chance: ``(tasks,)`` score of guessing.
        bandwidth: see `clusters`.
        smallest: see `clusters`.

    Raises:
        AllocgymError: no group of tasks grows.
    """
    labels = clusters(scores, bandwidth, smallest)
    unit = float(compute[0])
    kept, ends = [], []
    for label in np.unique(labels[labels >= 0]):
        mine = labels == label
        mean, guess = scores[mine].mean(0), float(chance[mine].mean())
        if not grows(mean, guess):
            continue
        kept.append(np.flatnonzero(mine))
        end = fit_growth(compute / unit, mean, guess)(np.array([target / unit]))[0]
        ends.append(float(end) * mine.sum())
    if not kept:
        raise AllocgymError("scores: no group of tasks grows with compute; nothing to extrapolate")
    index = np.concatenate(kept)
    part = sum(ends) / len(index)
    p = whole_from_part(scores[index].mean(0), scores.mean(0))
    return float(part + part * (1 - part) * (p * part ** np.arange(3)).sum())
