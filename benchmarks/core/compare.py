"""Paired comparisons: differences, intervals, corrections."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests


@dataclasses.dataclass(frozen=True)
class Paired:
    """A paired difference ``ours - theirs`` (losses: negative means we are ahead).

    Attributes:
        mean: of the differences.
        low, high: bootstrap 95 % interval (BCa; percentile where BCa is undefined).
        wins, losses: pairs in which we are lower, higher.
        p: Wilcoxon signed-rank p-value.
        n: pairs.
    """

    mean: float
    low: float
    high: float
    wins: int
    losses: int
    p: float
    n: int

    @property
    def verdict(self) -> str:
        """``"won"``, ``"tie"`` or ``"lost"`` by whether the interval excludes zero."""
        return "won" if self.high < 0 else "lost" if self.low > 0 else "tie"


def paired(ours: np.ndarray, theirs: np.ndarray) -> Paired:
    """Compare two methods on the same seeds; scores are losses, lower is better."""
    d = np.asarray(ours, float) - np.asarray(theirs, float)
    low = high = float(d.mean())
    p = 1.0
    if len(d) > 1 and np.ptp(d) > 0:
        result = stats.bootstrap((d,), np.mean, n_resamples=4000, method="percentile", rng=0)
        low, high = (float(v) for v in result.confidence_interval)
        p = float(stats.wilcoxon(d).pvalue) if np.any(d != 0) else 1.0
    return Paired(float(d.mean()), low, high, int((d < 0).sum()), int((d > 0).sum()), p, len(d))


def holm(p_values: list[float]) -> list[float]:
    """Holm-corrected p-values."""
    if not p_values:
        return []
    return [float(p) for p in multipletests(p_values, method="holm")[1]]


def normalised_gain(policy: np.ndarray, uniform: np.ndarray, oracle: np.ndarray) -> float | None:
    """``(policy - uniform) / (oracle - uniform)``; None where the oracle's lead is noise."""
    lead = np.asarray(oracle) - np.asarray(uniform)
    error = lead.std(ddof=1) / np.sqrt(len(lead)) if len(lead) > 1 else np.inf
    if abs(lead.mean()) < 2 * error or lead.mean() == 0:
        return None
    return float((np.mean(policy) - np.mean(uniform)) / lead.mean())


def as_dict(result: Paired) -> dict[str, Any]:
    """Round for JSON."""
    data = dataclasses.asdict(result)
    return {
        **{k: round(v, 6) if isinstance(v, float) else v for k, v in data.items()},
        "verdict": result.verdict,
    }
