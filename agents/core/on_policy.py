"""Learning with the on-policy algorithms of Stable-Baselines3, so that a killed training goes on.

Between two updates everything is kept: parameters, optimiser, generators, the batch of episodes. What
comes after is then the same bit for bit, where torch is (one thread, the same machine). An environment
whose state cannot be written down (a third party's) has no checkpoints: its training begins anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.learning import held, restore

COUNTS = ("num_timesteps", "_n_updates", "_last_obs", "_last_episode_starts")
"""Attributes of an algorithm, beside its parts, that decide what it does next."""


def learn(
    model: OnPolicyAlgorithm,
    steps: int,
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Learn for so many environment steps, those before a kill included; none is counted twice.

    Args:
        model: on an `SB3VecEnv`.
        steps: in all.
        progress: called with (steps so far, mean return).
        checkpoint: where it goes on from, and keeps where it stands.
    """
    kept = checkpoint or Checkpoint()
    # Its own logger would make a folder for temporary files, and leave it there.
    model.set_logger(Logger(None, []))
    if kept.state is not None:
        _restore(model, kept.state)
    left = steps - model.num_timesteps
    model.learn(left, callback=_Course(progress, kept), reset_num_timesteps=False)


class _Course(BaseCallback):
    """Reports after each batch of experience; keeps what there is before the next one."""

    def __init__(
        self, progress: Callable[[int, float], None] | None, checkpoint: Checkpoint
    ) -> None:
        super().__init__()
        self._progress, self._checkpoint = progress, checkpoint

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.model.num_timesteps:
            self._checkpoint.keep(lambda: _state(self.model))

    def _on_rollout_end(self) -> None:
        episodes: Sequence[Any] = self.model.ep_info_buffer or []
        if episodes and self._progress is not None:
            mean = float(np.mean([e["r"] for e in episodes]))
            self._progress(self.num_timesteps, mean)


def _parts(model: Any) -> dict[str, Any]:
    return {"policy": model.policy, "optimizer": model.policy.optimizer}


def _state(model: Any) -> dict[str, Any]:
    return {
        **held(_parts(model)),
        "counts": {name: getattr(model, name) for name in COUNTS},
        "episodes": list(model.ep_info_buffer),
        "env": model.env.get_state(),
    }


def _restore(model: Any, state: dict[str, Any]) -> None:
    model.env.set_state(state["env"])
    for name, value in state["counts"].items():
        setattr(model, name, value)
    # No longer than the algorithm's own, which does not exist before it learns.
    model._setup_learn(0, None, reset_num_timesteps=False)
    model.ep_info_buffer.extend(state["episodes"])
    restore(_parts(model), state)
