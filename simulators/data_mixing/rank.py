"""Whether a fitted law can rank runs it has not seen: the condition for promising anything."""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import rankdata

from allocgym.simulators.data_mixing.regmix import r_squared

LEAST = 0.5
"""Lower end of the interval of Spearman's rank agreement from which a law may promise."""
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Rank:
    """Agreement of predictions with runs that were left out.

    Attributes:
        spearman, low, high: rank agreement and its 95 % bootstrap interval over runs.
        r2: share of the variance that is predicted.
        rmse: root of the mean squared error, in the unit of what was measured.
        optimism: mean of measured minus foretold over the tenth of the runs that were foretold best.
        doubts: why nothing may be promised, one sentence each; empty where all is well.
    """

    spearman: float
    low: float
    high: float
    r2: float
    rmse: float
    optimism: float
    doubts: tuple[str, ...]


def rank_agreement(measured: np.ndarray, foretold: np.ndarray, domains: int) -> Rank:
    """Judge out-of-fold predictions.

    Args:
        measured: ``(runs,)`` at the end of runs.
        foretold: ``(runs,)`` the same by fits without them.
        domains: of the table.
    """
    rows = np.random.default_rng(0).integers(0, len(measured), (RESAMPLES, len(measured)))
    resampled = _spearman(measured[rows], foretold[rows])
    low, high = (float(v) for v in np.quantile(resampled, (0.025, 0.975)))
    middle = float(_spearman(measured[None], foretold[None])[0])
    top = np.argsort(foretold)[: max(len(foretold) // 10, 1)]
    doubts = []
    if len(measured) < domains:
        doubts.append(f"{len(measured)} runs cannot tell {domains} domains apart")
    if low < LEAST:
        doubts.append(
            f"rank agreement on left-out runs is {middle:.2f} [{low:.2f}, {high:.2f}]; a lower end "
            f"of {LEAST} or more is needed"
        )
    return Rank(
        spearman=middle,
        low=low,
        high=high,
        r2=r_squared(measured, foretold) if np.ptp(measured) > 0 else 0.0,
        rmse=float(np.sqrt(np.mean((measured - foretold) ** 2))),
        optimism=float(np.mean((measured - foretold)[top])),
        doubts=tuple(doubts),
    )


def _spearman(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Rank correlation of rows; 0 where one of two rows is constant."""
    a, b = (rankdata(v, axis=1) - (v.shape[1] + 1) / 2 for v in (one, other))
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.asarray((a * b).sum(1) / np.where(size > 0, size, np.inf))
