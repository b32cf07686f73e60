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
    whole = np.asarray(whole, dtype=np.int64)
    units = np.empty(amounts.shape, np.int64)
    _round(amounts, whole, units)
    return units


@kernel
def _round(asked: np.ndarray, whole: np.ndarray, units: np.ndarray) -> None:
    n, size = units.shape
    missing, rest = whole.copy(), np.empty((n, size), np.int32)
    for j in range(n):
        for i in range(size):
            # A value that is whole but for rounding error is whole: no unit is lost to noise.
            floor = np.floor(asked[j, i] + 1e-9)
            units[j, i] = np.int64(floor)
            missing[i] -= units[j, i]
            # Remainders as integers: those equal but for rounding error are equal.
            rest[j, i] = np.int32((asked[j, i] - floor) * 2**26)
    if n > 32:
        for i in range(size):
            for j in np.argsort(-rest[:, i], kind="mergesort")[: missing[i]]:
                units[j, i] += 1
        return
    # Made unique by its row, each is ranked by counting who is larger: no branches, no sort.
    for j in range(n):
        for i in range(size):
            rest[j, i] = rest[j, i] * 32 - j
    larger = np.empty(size, np.int32)
    for j in range(n):
        larger[:] = 0
        for k in range(n):
            for i in range(size):
                larger[i] += rest[k, i] > rest[j, i]
        for i in range(size):
            units[j, i] += larger[i] < missing[i]


def above_floors(
    shares: np.ndarray, whole: np.ndarray, floor: np.ndarray, left: np.ndarray
) -> np.ndarray | None:
    """Give every claimant its floor first and divide the rest by shares, in whole units.

    Args:
        shares: ``(n, batch)``, columns summing to 1.
        whole: ``(batch,)`` units to give away, at least the floors' sum.
        floor: ``(n, batch)`` least units of each claimant, while it has as many left.
        left: ``(n, batch)`` most units of each claimant.

    Returns:
        ``(n, batch)`` int64, columns summing to ``whole`` exactly; None where what is left of some
        claimant binds (then `split_units` has to share out what is cut off).
    """
    units = np.empty(shares.shape, np.int64)
    fits = _fill_above(shares, np.asarray(whole, dtype=np.int64), floor, left, units)
    return units if fits else None


@kernel
def _fill_above(
    shares: np.ndarray, whole: np.ndarray, floor: np.ndarray, left: np.ndarray, units: np.ndarray
) -> bool:
    n, batch = shares.shape
    asked, room = np.empty((n, batch)), whole.copy()
    for j in range(n):
        for i in range(batch):
            room[i] -= min(floor[j, i], left[j, i])
    over = 0
    for j in range(n):
        for i in range(batch):
            asked[j, i] = shares[j, i] * room[i] + min(floor[j, i], left[j, i])
            over += asked[j, i] > left[j, i]
    if over:
        return False
    _round(asked, whole, units)
    return True


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
