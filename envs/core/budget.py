"""Budget arithmetic: from an agent's numbers to an exact split.

All functions are pure and batched, claimants on the first axis: ``(n, batch)``. A column is one
environment. Columns are independent and every one of them sums to what it was given.
"""

from __future__ import annotations

import numpy as np

from allocgym.envs.core.arrays import Array, namespace, total
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.kernels import kernel

KAPPA = float(np.log(100.0))
"""Default reach of an action: one unit of action multiplies a share's odds by 100."""


def anchored_shares(action: Array, prior: Array, kappa: float = KAPPA) -> Array:
    """Tilt a prior: ``share_j`` proportional to ``prior_j * exp(kappa * action_j)``.

    Args:
        action: ``(n, batch)``, any real numbers; 0 everywhere returns the prior.
        prior: ``(n, batch)``, non-negative, at least one positive entry a column. Claimants with
            prior 0 (padding) get share 0.
        kappa: reach of the action, > 0.

    Returns:
        ``(n, batch)`` shares, each column summing to 1.
    """
    xp = namespace(action)
    weights = prior * xp.exp(kappa * action)
    return weights / total(weights)


def capped_shares(shares: Array, low: Array, high: Array) -> Array:
    """Scale shares into ``[low, high]`` while keeping their ratios wherever no bound binds.

    Finds the one ``theta`` per column with ``sum_j clip(theta * share_j, low_j, high_j) = 1``,
    exactly: the sum is piecewise linear in theta, so it is evaluated at its break points and
    interpolated between the two that enclose 1.

    Args:
        shares: ``(n, batch)``, non-negative.
        low: ``(n, batch)``, >= 0, each column summing to at most 1.
        high: ``(n, batch)``, >= low, each column summing to at least 1.

    Raises:
        AllocgymError: the bounds leave no room for a split that sums to 1.
    """
    if ((shares >= low) & (shares <= high)).all():
        return shares
    if (low.sum(0) > 1 + 1e-9).any() or (high.sum(0) < 1 - 1e-9).any():
        raise AllocgymError(
            "floors and caps: no split sums to 1 within them "
            f"(floors sum to {low.sum(0).max():.4g}, caps to {high.sum(0).min():.4g})"
        )
    out = shares.copy()
    bad = ((shares < low) | (shares > high)).any(0)
    # Claimants with share 0 may still be needed once every other one is at its cap.
    x = np.maximum(shares[:, bad], 1e-12) * (high[:, bad] > 0)
    lo, hi = low[:, bad], high[:, bad]
    with np.errstate(divide="ignore", invalid="ignore"):
        knots = np.concatenate([np.where(x > 0, lo / x, 0.0), np.where(x > 0, hi / x, 0.0)])
    knots = np.sort(knots, axis=0)
    totals = np.clip(knots[:, None] * x, lo, hi).sum(1)
    above = np.clip((totals < 1).sum(0), 1, len(knots) - 1)
    col = np.arange(x.shape[1])
    k0, k1 = knots[above - 1, col], knots[above, col]
    t0, t1 = totals[above - 1, col], totals[above, col]
    gap = np.where(t1 > t0, t1 - t0, 1.0)
    theta = k0 + (k1 - k0) * np.clip((1 - t0) / gap, 0, 1)
    out[:, bad] = np.clip(theta * x, lo, hi)
    return out


def largest_remainder(amounts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Round a split to whole units without changing its total (Hamilton's method).

    Args:
        amounts: ``(n, batch)`` float64, non-negative, columns summing to ``whole``
            (up to rounding error).
        whole: ``(batch,)`` whole units.

    Returns:
        ``(n, batch)`` int64, columns summing to ``whole`` exactly, each entry the floor or the
        ceiling of what was asked. Ties go to the lower index.
    """
    units = np.empty(amounts.shape, np.int64)
    _round_columns(amounts, np.asarray(whole, dtype=np.int64), units)
    return units


@kernel
def _round_columns(amounts: np.ndarray, whole: np.ndarray, units: np.ndarray) -> None:
    n, batch = amounts.shape
    rest = np.empty(n, np.int64)
    for i in range(batch):
        missing = whole[i]
        for j in range(n):
            # A value that is whole but for rounding error is whole: it must not lose a unit to noise.
            floor = np.floor(amounts[j, i] + 1e-9)
            units[j, i] = np.int64(floor)
            missing -= units[j, i]
            # Remainders as integers: those equal but for rounding error are equal.
            rest[j] = np.int64((amounts[j, i] - floor) * 2**26)
        if n > 32:
            for j in np.argsort(-rest, kind="mergesort")[:missing]:
                units[j, i] += 1
            continue
        for _ in range(min(missing, n)):
            largest = 0
            for j in range(1, n):
                if rest[j] > rest[largest]:
                    largest = j
            units[largest, i] += 1
            rest[largest] = -(2**26)


def split_units(
    shares: np.ndarray,
    amount: np.ndarray,
    low: np.ndarray | None = None,
    high: np.ndarray | None = None,
) -> np.ndarray:
    """Turn shares into whole units within bounds that are themselves whole units.

    Args:
        shares: ``(n, batch)``, columns summing to 1.
        amount: ``(batch,)`` units to give away, > 0.
        low: ``(n, batch)`` whole units each claimant gets at least (default 0).
        high: ``(n, batch)`` whole units each claimant may get (default ``amount``).

    Returns:
        ``(n, batch)`` int64, columns summing to ``amount``, within ``[low, high]``.
    """
    amount = np.asarray(amount)
    x = shares.astype(np.float64, copy=False)
    if low is not None or high is not None:
        lo = np.zeros_like(x) if low is None else low / amount
        hi = np.ones_like(x) if high is None else np.minimum(high / amount, 1.0)
        x = capped_shares(x, lo, hi)
    return largest_remainder(x * amount, amount)


def action_for(shares: np.ndarray, prior: np.ndarray, kappa: float = KAPPA) -> np.ndarray:
    """Invert `anchored_shares` up to the shift that leaves shares unchanged.

    Shares the prior allows but the action's reach does not (ratios beyond ``exp(2 kappa)``) come
    back clipped to the edge of ``[-1, 1]``. Padding (prior 0) gets action 0.
    """
    inside = prior > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        logit = np.where(inside, np.log(shares / np.where(inside, prior, 1.0)), 0.0)
    top = np.where(inside, logit, -np.inf).max(0)
    logit = np.where(inside, np.maximum(logit - top, -2 * kappa), 0.0)
    bottom = np.where(inside, logit, np.inf).min(0)
    return np.clip(np.where(inside, (logit - bottom / 2) / kappa, 0.0), -1.0, 1.0)
