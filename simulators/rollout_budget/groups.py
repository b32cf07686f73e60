"""What comes back from groups of rollouts: successes, mixed groups, tokens."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.kernels import kernel
from allocgym.simulators.rollout_budget.sampling import RolloutState

PER_VISIT = 4096
"""Index distance between the rollouts of two updates of one prompt."""
PER_UPDATE = 64
"""Index distance between the rounds of two updates."""


def draw_prompts(
    state: RolloutState,
    units: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    tried: np.ndarray,
    spread: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw every rollout of prompts: right or wrong; tokens in the mean plus their noise.

    Args:
        state: of the episodes.
        units: ``(n, batch)`` int64 rollouts of each prompt.
        p: ``(n, batch)`` success rates.
        mean: ``(n, batch)`` mean tokens of a rollout.
        tried: ``(n, batch)`` rollouts in earlier rounds of this update.
        spread: standard deviation of a length over its mean.

    Returns:
        ``(n, batch)`` successes and tokens.
    """
    real = state.tried.dtype
    count = units.ravel()
    stream = np.take_along_axis(state.streams.rollout, state.ids, 0).ravel()
    start = (state.step * PER_VISIT + tried.astype(np.int64)).ravel()
    begin = np.cumsum(count) - count
    within = np.arange(int(count.sum())) - np.repeat(begin, count)
    u = randomness.uniform(np.repeat(stream, count), np.repeat(start, count) + within)
    hits = u < np.repeat(p.ravel(), count)
    tallied = np.concatenate([[0], np.cumsum(hits)])
    right = (tallied[begin + count] - tallied[begin]).reshape(units.shape)
    stream = np.take_along_axis(state.streams.length, state.ids, 0)
    noise = randomness.normal(stream, state.step * PER_UPDATE + state.round, real.type)
    tries = units.astype(real)
    tokens = mean * (tries + spread * np.sqrt(tries) * noise)
    np.rint(tokens, out=tokens)
    return right.astype(real), np.maximum(tokens, tries, out=tokens)


def draw_bins(
    state: RolloutState,
    units: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    tried: np.ndarray,
    spread: Any,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the successes of bins (normal approximation, rounded); mixed groups in the mean.

    Args:
        state: of the episodes.
        units: ``(n, batch)`` rollouts of each bin, as real numbers.
        p: ``(n, batch)`` success rates.
        mean: ``(n, batch)`` mean tokens of a rollout.
        tried: ``(n, batch)`` rollouts in earlier rounds of this update.
        spread: standard deviation of a length over its mean.

    Returns:
        ``(n, batch)`` successes, expected prompts with mixed groups (of this update's rounds so far),
        tokens.
    """
    real = units.dtype
    index = state.step * PER_UPDATE + state.round
    drawn = randomness.short_normals(state.streams.bins, index, 2 * len(units), real.type)
    right, mixed, tokens = (np.empty_like(units) for _ in range(3))
    p, mean = (v.astype(real, copy=False) for v in (p, mean))
    _fill(units, p, mean, drawn, tried, state.prompts, spread, right, mixed, tokens)
    return right, mixed, tokens


@kernel
def _fill(
    units: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    drawn: np.ndarray,
    tried: np.ndarray,
    prompts: np.ndarray,
    spread: float,
    right: np.ndarray,
    mixed: np.ndarray,
    tokens: np.ndarray,
) -> None:
    n, batch = units.shape
    number = units.dtype.type
    least, one = number(1e-7), number(1)
    for j in range(n):
        for i in range(batch):
            tries = units[j, i]
            rate = min(max(p[j, i], least), one - least)
            miss = one - rate
            sd = math.sqrt(tries * rate * miss)
            hits = np.rint(tries * rate + sd * drawn[j, i])
            right[j, i] = min(max(hits, number(0)), tries)
            size = (tried[j, i] + tries) / max(prompts[j, i], one)
            # 1 - p^n - q^n, by exponentials: faster than powers.
            chance = one - math.exp(size * math.log(rate)) - math.exp(size * math.log(miss))
            mixed[j, i] = max(chance, number(0)) * prompts[j, i]
            length = mean[j, i] * (tries + spread * math.sqrt(tries) * drawn[n + j, i])
            tokens[j, i] = max(np.rint(length), tries)
