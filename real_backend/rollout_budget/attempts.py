"""What has been tried in the update at hand: answers and rewards, round after round."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

COUNTS = ("tried", "right", "tokens")
PREFIX = "update."


class Attempts:
    """The rollouts of one update.

    Args:
        offered: ``(m,)`` prompts of the update.

    Attributes:
        tried, right, tokens: ``(m,)`` float64 rollouts, successes and tokens of each prompt so far.
    """

    def __init__(self, offered: np.ndarray) -> None:
        self.offered = offered
        self.tried, self.right, self.tokens = np.zeros((3, len(offered)))
        self._rounds: list[tuple[np.ndarray, Tensor, np.ndarray]] = []

    def add(
        self, counts: np.ndarray, answers: Tensor, lengths: np.ndarray, rewards: np.ndarray
    ) -> None:
        """Take in one round.

        Args:
            counts: ``(m,)`` rollouts of each prompt.
            answers: ``(n, answer)`` tokens, prompts in order.
            lengths: ``(n,)`` tokens of each answer.
            rewards: ``(n,)`` 0 or 1.
        """
        m = len(self.offered)
        group = np.repeat(np.arange(m), counts)
        self._rounds.append((group, answers, rewards))
        self.tried = self.tried + counts
        self.right = self.right + np.bincount(group, rewards, m)
        self.tokens = self.tokens + np.bincount(group, lengths, m)

    def joined(self) -> tuple[np.ndarray, Tensor, np.ndarray]:
        """``(n,)`` prompt (its place in the update) of each answer so far, answers, rewards."""
        group, answers, rewards = zip(*self._rounds, strict=True)
        return np.concatenate(group), torch.cat(answers), np.concatenate(rewards)

    @property
    def mixed(self) -> np.ndarray:
        """``(m,)`` bool: the prompt's group holds a success and a failure."""
        return (self.right > 0) & (self.right < self.tried)

    def ratios(self) -> np.ndarray:
        """``(2,)`` mixed groups over groups, rollouts in mixed groups over rollouts."""
        mixed = self.mixed
        return np.array(
            [
                mixed.sum() / max((self.tried > 0).sum(), 1),
                (self.tried * mixed).sum() / max(self.tried.sum(), 1),
            ]
        )

    def state(self) -> dict[str, Tensor]:
        """Everything as tensors, for a checkpoint; nothing before the first round."""
        if not self._rounds:
            return {}
        group, answers, rewards = self.joined()
        held = {"group": group, "rewards": rewards} | {k: getattr(self, k) for k in COUNTS}
        tensors = {k: torch.from_numpy(np.array(v)) for k, v in held.items()}
        return {f"{PREFIX}{k}": v for k, v in (tensors | {"answers": answers}).items()}

    def load(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from `state` (other entries of the mapping are left alone)."""
        if f"{PREFIX}group" not in state:
            return
        group, rewards = (state[f"{PREFIX}{k}"].numpy() for k in ("group", "rewards"))
        self._rounds = [(group, state[f"{PREFIX}answers"].to(device), rewards)]
        self.tried, self.right, self.tokens = (state[f"{PREFIX}{k}"].numpy() for k in COUNTS)
