"""Environments whose problem knows which actions are legal."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class MaskedEnv(AllocationEnv):
    """An environment that tells which actions are legal, under sb3-contrib's name."""

    def action_masks(self) -> np.ndarray:
        """``(actions,)`` bool: which actions are legal now."""
        problem: Any = self.problem
        masks: np.ndarray = problem.masks(self.memory)[0]
        return masks


class MaskedVectorEnv(AllocationVectorEnv):
    """Many of them at once."""

    def action_masks(self) -> np.ndarray:
        """``(num_envs, actions)`` bool: which actions are legal now."""
        problem: Any = self.problem
        masks: np.ndarray = problem.masks(self.memory)
        return masks
