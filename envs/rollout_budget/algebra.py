"""The algebra of groups of rollouts: mixed groups, their marginal gains, exact allocation.

``p`` is a success rate, ``n`` a number of rollouts of one prompt (a group). A group is *mixed* when
it holds a success and a failure: group-relative advantages of any other group are zero.
"""

from __future__ import annotations

import numpy as np

from allocgym.envs.core.errors import AllocgymError


def mixed(p: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Probability that ``n`` rollouts are mixed: ``1 - p^n - (1-p)^n`` (0 for n < 2)."""
    value: np.ndarray = 1.0 - np.power(p, n) - np.power(1.0 - p, n)
    return np.where(np.asarray(n) < 2, 0.0, np.maximum(value, 0.0))


def marginal(p: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Gain in `mixed` from rollout n + 1: ``p^n (1-p) + (1-p)^n p``, decreasing in n >= 1."""
    return np.asarray(np.power(p, n) * (1 - p) + np.power(1 - p, n) * p)


def rollouts_until_mixed(p: np.ndarray) -> np.ndarray:
    """Expected rollouts until a group is mixed: ``1/p + 1/(1-p) - 1``."""
    return np.asarray(1 / p + 1 / (1 - p) - 1)


def rollouts_for(p: float, confidence: float) -> float:
    """Rollouts that see a success (of rate ``p``) with this probability (Knapsack RL's cost).

    Liu et al. 2025 (arXiv 2509.25849) price a prompt at ``log(1 - c) / log(max(p, 1 - p))``.
    """
    return float(np.log(1 - confidence) / np.log(max(p, 1 - p)))


def mean_abs_advantage(p: np.ndarray, normalised: bool = True) -> np.ndarray:
    """Mean |A| of a group with success rate ``p``: ``2 sqrt(p(1-p))``; without std ``2 p (1-p)``.

    The quantity SEC (arXiv 2505.14970) and DUMP (arXiv 2504.09710) rank categories by.
    """
    variance = p * (1 - p)
    return np.asarray(2 * np.sqrt(variance) if normalised else 2 * variance)


def beta_gains(a: np.ndarray, b: np.ndarray, most: int) -> np.ndarray:
    """Marginal gains in P(mixed) under a Beta belief, in closed form.

    ``E[p^n (1-p)] + E[(1-p)^n p]`` with ``E[p^n] = prod_{j<n} (a+j) / (a+b+j)``.

    Args:
        a: ``(..., m)`` pseudo-successes, > 0.
        b: ``(..., m)`` pseudo-failures, > 0.
        most: number of gains.

    Returns:
        ``(..., m, most)``; entry ``n`` is the gain of rollout ``n + 1``; entry 0 is 0 (one rollout
        is never mixed).
    """
    j = np.arange(most)
    total = (a + b)[..., None] + j
    up = np.cumprod((a[..., None] + j) / total, -1)
    down = np.cumprod((b[..., None] + j) / total, -1)
    gains = np.zeros((*np.shape(a), most))
    # E[p^n (1-p)] = E[p^n] - E[p^(n+1)] = E[p^n] * b / (a + b + n).
    rest = total[..., 1:]
    gains[..., 1:] = (up[..., :-1] * b[..., None] + down[..., :-1] * a[..., None]) / rest
    return gains


def known_gains(p: np.ndarray, most: int) -> np.ndarray:
    """`marginal` for n = 0 .. most - 1 where ``p`` is known: ``(..., m, most)``, entry 0 is 0."""
    n = np.arange(most)
    gains = marginal(np.asarray(p)[..., None], n)
    gains[..., 0] = 0.0
    return gains


def knapsack_value(p: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Value of ``n`` rollouts in Knapsack RL: ``[1 - p^n - (1-p)^n] p (1-p)^2`` (InfoGain)."""
    return np.asarray(mixed(p, n) * p * (1 - p) ** 2)


def concave(gains: np.ndarray) -> np.ndarray:
    """Gains of the least concave majorant of a value: what `greedy` needs, where gains may rise first.

    Args:
        gains: ``(..., most)``, entry ``n`` the gain of unit n + 1.

    Returns:
        ``(..., most)`` decreasing gains; each stretch of rising ones is averaged.
    """
    value = np.concatenate([np.zeros_like(gains[..., :1]), np.cumsum(gains, -1)], -1)
    out = np.empty_like(gains)
    most = gains.shape[-1]
    slope, end = np.zeros(gains.shape[:-1]), np.zeros(gains.shape[:-1], int)
    for j in range(most):
        mean = (value[..., j + 1 :] - value[..., j, None]) / np.arange(1, most - j + 1)
        begins = end == j
        slope = np.where(begins, mean.max(-1), slope)
        end = np.where(begins, j + 1 + mean.argmax(-1), end)
        out[..., j] = slope
    return out


def greedy(
    gains: np.ndarray,
    budget: np.ndarray | int,
    low: np.ndarray | int,
    high: np.ndarray | int,
    multiple: int = 1,
) -> np.ndarray:
    """Allocate whole rollouts by marginal gains: exact, because gains decrease.

    With gains that do not increase beyond each row's ``low`` the value is concave, and taking the
    largest gains until the budget is spent is optimal (the knapsack's dynamic program is not
    needed). Batched without a heap: the threshold gain is found by partition, ties go round the
    rows from the first.

    Args:
        gains: ``(batch, m, most)``, entry ``[b, i, n]`` the gain of rollout n + 1 of prompt i.
        budget: ``(batch,)`` rollouts to give away.
        low: ``(batch, m)`` rollouts each prompt gets at least.
        high: ``(batch, m)`` rollouts each prompt may get, <= most.
        multiple: every count is a multiple of this (``low``, ``high`` and ``budget`` too).

    Returns:
        ``(batch, m)`` int64, rows summing to ``budget`` exactly.

    Raises:
        AllocgymError: the bounds leave no such split.
    """
    batch, m, most = gains.shape
    low = np.broadcast_to(np.asarray(low, np.int64), (batch, m))
    high = np.minimum(np.broadcast_to(np.asarray(high, np.int64), (batch, m)), most)
    budget = np.broadcast_to(np.asarray(budget, np.int64), (batch,))
    if (low.sum(1) > budget).any() or (high.sum(1) < budget).any():
        raise AllocgymError(
            f"budget: {budget.tolist()} rollouts cannot be split within bounds that sum to "
            f"{low.sum(1).tolist()} and {high.sum(1).tolist()}"
        )
    if multiple > 1:
        blocks = most // multiple
        gains = gains[..., : blocks * multiple].reshape(batch, m, blocks, multiple).sum(-1)
        low, high, budget = low // multiple, high // multiple, budget // multiple
        most = blocks
    n = np.arange(most)
    open_ = (n >= low[..., None]) & (n < high[..., None])
    # Rounding may make a gain exceed the one before it by an ulp: a prefix must stay a prefix.
    ordered = np.minimum.accumulate(np.where(n < low[..., None], np.inf, gains), -1)
    # Rollout by rollout, so that equal gains are dealt round the rows and not to the first of them.
    flat = np.where(open_, ordered, -np.inf).transpose(0, 2, 1).reshape(batch, m * most)
    left = budget - low.sum(1)
    out = low.copy()
    for rest in np.unique(left):
        rows = np.flatnonzero(left == rest)
        if rest == 0:
            continue
        part = flat[rows]
        level = np.partition(part, m * most - int(rest), 1)[:, m * most - int(rest)][:, None]
        above = part > level
        tied = part == level
        missing = rest - above.sum(1, keepdims=True)
        above |= tied & (np.cumsum(tied, 1) <= missing)
        out[rows] += above.reshape(len(rows), most, m).sum(1)
    return out * multiple


def dynamic_program(
    values: np.ndarray, budget: int, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, float]:
    """Solve the same problem by brute-force dynamic programming (the check of `greedy`).

    Args:
        values: ``(m, most + 1)``, value of n rollouts for each prompt.
        budget: rollouts to give away, exactly.
        low: ``(m,)`` least rollouts of each prompt.
        high: ``(m,)`` most rollouts of each prompt.

    Returns:
        ``(m,)`` counts and their total value.
    """
    m = len(values)
    best = np.full(budget + 1, -np.inf)
    best[0] = 0.0
    choice = np.zeros((m, budget + 1), np.int64)
    for i in range(m):
        new = np.full(budget + 1, -np.inf)
        for n in range(int(low[i]), min(int(high[i]), budget) + 1):
            reach = best[: budget + 1 - n] + values[i, n]
            better = reach > new[n:]
            new[n:][better] = reach[better]
            choice[i, n:][better] = n
        best = new
    counts = np.zeros(m, np.int64)
    left = budget
    for i in reversed(range(m)):
        counts[i] = choice[i, left]
        left -= counts[i]
    return counts, float(best[budget])


def proportional(
    weights: np.ndarray, budget: np.ndarray | int, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """Split rollouts in proportion to weights within whole-number bounds, exactly.

    Args:
        weights: ``(batch, m)``, non-negative (all zero: equal shares).
        budget: ``(batch,)`` rollouts.
        low: ``(batch, m)`` least rollouts.
        high: ``(batch, m)`` most rollouts.

    Returns:
        ``(batch, m)`` int64 counts; rows sum to ``budget``.
    """
    from allocgym.envs.core.budget import split_units

    room = (high > 0).astype(float)
    weights = np.where(np.isfinite(weights), weights, 0.0) * room
    weights = np.where(weights.sum(1, keepdims=True) > 0, weights, room)
    shares = weights / weights.sum(1, keepdims=True)
    amount = np.broadcast_to(np.asarray(budget), (len(shares),))
    return split_units(shares.T, amount, low.T, high.T).T


def rloo_counts(p: np.ndarray, budget: np.ndarray) -> np.ndarray:
    """Real-valued optimum of VIP (arXiv 2602.01601) for RLOO: equal to Neyman's split.

    ``min sum 4 s^2 a_i / (n_i - 1)`` with ``a = p (1-p)`` gives
    ``n_i = 1 + (C - M) sqrt(a_i) / sum sqrt(a_j)``.

    Args:
        p: ``(batch, m)`` success rates.
        budget: ``(batch,)`` rollouts C.
    """
    root = np.sqrt(p * (1 - p))
    total = np.maximum(root.sum(-1, keepdims=True), 1e-12)
    return np.asarray(1 + (np.asarray(budget)[..., None] - p.shape[-1]) * root / total)


def dr_grpo_gains(p: np.ndarray, most: int) -> np.ndarray:
    """Fall of VIP's Dr.GRPO variance ``4 s^2 p(1-p) (n-1) / n^2`` by rollout n + 1 (n >= 3).

    Below three rollouts the variance is not convex; those entries are infinite, so that `greedy`
    fills them first (pass ``low >= 3`` to keep the published bounds).
    """
    n = np.arange(most)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.where(n > 0, (n - 1) / np.maximum(n, 1) ** 2, np.inf)
    after = n / (n + 1) ** 2
    with np.errstate(invalid="ignore"):
        drop = np.where(n >= 3, size - after, np.inf)
    scale = np.maximum(4 * np.asarray(p) * (1 - np.asarray(p)), 1e-12)
    return np.asarray(scale[..., None] * drop)


def prompt_ratio(mixed_prompts: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Effective-gradient ratio per prompt: mixed groups over groups asked for (rows summed)."""
    return np.asarray(mixed_prompts.sum(-1) / np.maximum(prompts.sum(-1), 1))


def rollout_ratio(mixed_rollouts: np.ndarray, rollouts: np.ndarray) -> np.ndarray:
    """Effective-gradient ratio per rollout: rollouts in mixed groups over all rollouts."""
    return np.asarray(mixed_rollouts.sum(-1) / np.maximum(rollouts.sum(-1), 1))
