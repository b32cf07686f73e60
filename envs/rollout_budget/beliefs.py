"""What rollouts teach about success rates: discounted Beta beliefs and their companions.

Update at each visit, as in MoPPS (Qu et al. 2025, arXiv 2507.04632):
``a <- r a + (1 - r) a0 + successes``, with ``r`` the retention; likewise ``b``.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.rollout_budget.records import Beliefs

WINDOW = 16
"""Samples the published Knapsack RL estimator pads a visit to."""
POOL_KEEP = 0.9
"""Share of a category's counts kept from one update to the next."""
FADE = 0.3
"""Weight of the newest visit in the moving averages of mixed share and length."""


def fresh(prior_a: np.ndarray, prior_b: np.ndarray) -> Beliefs:
    """Beliefs before any rollout, from ``(batch, items)`` priors."""
    zero = np.zeros_like(prior_a)
    return Beliefs(
        a=prior_a,
        b=prior_b,
        recent_n=zero,
        recent_k=zero,
        streak=zero,
        mean=zero,
        mixed=zero + 0.5,
        length=zero,
        visits=zero,
        seen=zero,
    )


def take(array: np.ndarray, ids: np.ndarray | None) -> np.ndarray:
    """Rows of ``(batch, items)`` at ``(batch, n)`` ids (None: all, in order)."""
    return array if ids is None else np.take_along_axis(array, ids, 1)


def update(
    beliefs: Beliefs,
    ids: np.ndarray | None,
    tried: np.ndarray,
    right: np.ndarray,
    mixed_share: np.ndarray,
    length: np.ndarray,
    step: np.ndarray,
    prior_a: np.ndarray,
    prior_b: np.ndarray,
    retention: np.ndarray,
) -> Beliefs:
    """Take in the groups of one update.

    Args:
        beliefs: before it.
        ids: ``(batch, n)`` distinct items (None: every item, in order).
        tried: ``(batch, n)`` rollouts; rows with none leave their item as it was.
        right: ``(batch, n)`` successes.
        mixed_share: ``(batch, n)`` share of the row's groups that were mixed.
        length: ``(batch, n)`` mean tokens of a rollout.
        step: ``(batch,)`` number of the update, from 1.
        prior_a: ``(batch, items)``.
        prior_b: ``(batch, items)``.
        retention: ``(batch,)``.
    """
    old = {f.name: take(getattr(beliefs, f.name), ids) for f in dataclasses.fields(Beliefs)}
    keep = retention[:, None]
    lost = 1 - keep
    visited = tried > 0
    size = np.maximum(tried, 1)
    share = right / size
    pad = np.clip(WINDOW - tried, 0, old["recent_n"])
    had = old["recent_n"] + (old["recent_n"] == 0)
    first = old["visits"] == 0
    new = {
        "a": keep * old["a"] + lost * take(prior_a, ids) + right,
        "b": keep * old["b"] + lost * take(prior_b, ids) + (tried - right),
        "recent_n": tried + pad,
        "recent_k": right + pad * (old["recent_k"] / had),
        "streak": (old["streak"] + 1) * (mixed_share == 0),
        "mean": share,
        "mixed": old["mixed"] + FADE * (mixed_share - old["mixed"]),
        "length": old["length"]
        + np.maximum(first, old["a"].dtype.type(FADE)) * (length - old["length"]),
        "visits": old["visits"] + 1,
        "seen": np.broadcast_to(step[:, None].astype(old["a"].dtype), tried.shape),
    }
    everybody = bool(visited.all())
    out = {}
    for name, value in new.items():
        chosen = value if everybody else np.where(visited, value, old[name])
        if ids is None:
            out[name] = np.asarray(chosen)
        else:
            whole = getattr(beliefs, name).copy(order="K")
            np.put_along_axis(whole, ids, chosen, 1)
            out[name] = whole
    return Beliefs(**out)


def pool(
    counts: np.ndarray, category: np.ndarray, values: np.ndarray, keep: float = POOL_KEEP
) -> np.ndarray:
    """Discounted sums by category: ``(batch, CATEGORIES)`` after ``(batch, n)`` new values."""
    out = counts * keep
    batch, width = counts.shape
    index = category + np.arange(batch)[:, None] * width
    out = out + np.bincount(index.ravel(), values.ravel(), batch * width).reshape(batch, width)
    return out


def category_mean(pool_a: np.ndarray, pool_b: np.ndarray, start: np.ndarray | float) -> np.ndarray:
    """Running success rate of each category, ``start`` before any rollout (worth two of them)."""
    return np.asarray((pool_a + 2 * start) / (pool_a + pool_b + 2))
