"""Draws of scenario parameters: functions of (seed, purpose, claimant), whatever else is drawn."""

from __future__ import annotations

import numpy as np

from allocgym.envs.core import randomness


class Draw:
    """Uniform draws of a batch of seeds, by purpose."""

    def __init__(self, seeds: np.ndarray, n: int) -> None:
        self.seeds, self.n = seeds, n

    def one(self, purpose: str, low: float, high: float) -> np.ndarray:
        """One number an environment, ``(batch,)``."""
        u = randomness.uniform(randomness.stream(self.seeds, purpose), 0)[0]
        return low + (high - low) * u

    def each(self, purpose: str, low: float = 0.0, high: float = 1.0, index: int = 0) -> np.ndarray:
        """One number a claimant, ``(n, batch)``."""
        u = randomness.uniform(randomness.stream(self.seeds, purpose, self.n), index)
        return low + (high - low) * u

    def several(self, purpose: str, count: int) -> np.ndarray:
        """``count`` coarse numbers in (0, 1) a claimant, ``(count, n, batch)`` (16 bits each)."""
        state = randomness.stream(self.seeds, purpose, self.n)
        flat = state.reshape(1, -1)
        groups = -(-count // randomness.LANES)
        out = np.empty((groups, randomness.LANES, flat.size))
        for k in range(groups):
            randomness.short_uniforms(flat, k, randomness.LANES, out[k])
        return out.reshape(-1, *state.shape)[:count]

    def whole(self, purpose: str, low: int, high: int) -> np.ndarray:
        """One integer an environment, both ends included."""
        return np.floor(self.one(purpose, low, high + 1 - 1e-9)).astype(np.int64)
