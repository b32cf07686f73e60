"""Masked PPO (sb3-contrib) of the set encoder, on the native vector environments."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from allocgym.agents.core import segment_policy as segments
from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.on_policy import learn
from allocgym.agents.core.sb3 import SB3VecEnv
from allocgym.agents.core.training import Trained, Training
from allocgym.envs.core.environment import AllocationVectorEnv


class MaskedVecEnv(SB3VecEnv):
    """The adapter with one mask per environment, as sb3-contrib asks for them."""

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Call a method of the vector environment; masks come back row by row."""
        if method_name == "action_masks":
            masks: Any = self.env
            return list(masks.action_masks())
        return super().env_method(method_name, *args, indices=indices, **kwargs)


class SegmentActorCritic(MaskableActorCriticPolicy):
    """`SegmentPolicy` for sb3-contrib. The observation carries the mask that the policy applies."""

    def __init__(
        self, *args: Any, current: int | None = None, hidden: int = 64, **kwargs: Any
    ) -> None:
        self._current, self._hidden = current, hidden
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        choices: Any = self.action_space
        self.segments = segments.SegmentPolicy(
            space["claimants"].shape[-1],
            space["context"].shape[-1],
            int(choices.n),
            self._hidden,
            self._current,
        )
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _decide(self, obs: Any) -> tuple[torch.distributions.Categorical, torch.Tensor]:
        logits, value = self.segments({k: v.float() for k, v in obs.items()})
        return torch.distributions.Categorical(logits=logits), value[:, None]

    def forward(self, obs: Any, deterministic: bool = False, action_masks: Any = None) -> Any:
        """Return actions, values and log-probabilities."""
        odds, value = self._decide(obs)
        actions = odds.logits.argmax(-1) if deterministic else odds.sample()
        return actions, value, odds.log_prob(actions)

    def evaluate_actions(self, obs: Any, actions: torch.Tensor, action_masks: Any = None) -> Any:
        """Return values, log-probabilities and entropy of given actions."""
        odds, value = self._decide(obs)
        return value, odds.log_prob(actions.long().flatten()), odds.entropy()

    def predict_values(self, obs: Any) -> torch.Tensor:
        """Return values alone."""
        return self._decide(obs)[1]

    def _predict(
        self, observation: Any, deterministic: bool = False, action_masks: Any = None
    ) -> torch.Tensor:
        actions: torch.Tensor = self.forward(observation, deterministic)[0]
        return actions


def trained(training: Training, **defaults: Any) -> Trained:
    """Train on 64 environments for ``training.iterations`` steps; ``defaults`` as of `Training.build`."""
    backend = training.build(64, **defaults)
    env = AllocationVectorEnv(backend=backend)
    policy, information = train(
        env,
        training.iterations,
        training.seed,
        progress=training.progress,
        checkpoint=training.checkpoint,
    )
    return Trained(policy, backend.problem, information)


def train(
    env: AllocationVectorEnv,
    steps: int,
    seed: int = 0,
    hidden: int = 64,
    n_steps: int = 64,
    rate: float = 1e-3,
    entropy: float = 0.01,
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[segments.SegmentPolicy, dict[str, Any]]:
    """Train a segment policy by masked PPO.

    Args:
        env: native vector environment of a `ChoiceProblem`.
        steps: environment steps in all.
        seed: of weights, actions and episodes.
        hidden: width.
        n_steps: of each environment between updates.
        rate: first learning rate; it falls to a hundredth.
        entropy: weight of the entropy bonus.
        progress: called with (steps so far, mean return).
        checkpoint: where it goes on from, and keeps where it stands; see `on_policy`.

    Returns:
        The policy, and what should be recorded of the training.
    """
    checkpoint = checkpoint or Checkpoint()
    begun = time.perf_counter() - checkpoint.seconds
    problem: Any = env.problem
    model = MaskablePPO(
        SegmentActorCritic,
        MaskedVecEnv(env),
        n_steps=n_steps,
        ent_coef=entropy,
        batch_size=min(2048, n_steps * env.num_envs),
        n_epochs=4,
        gamma=1.0,
        gae_lambda=0.98,
        learning_rate=lambda left: rate * left + rate / 100,
        seed=seed,
        device="cpu",
        policy_kwargs={"current": problem.marker, "hidden": hidden},
    )
    learn(model, steps, progress, checkpoint)
    made: Any = model.policy
    policy: segments.SegmentPolicy = made.segments
    returns = [float(e["r"]) for e in model.ep_info_buffer or []]
    return policy.eval(), {
        "trainer": "masked PPO (sb3-contrib)",
        "steps": steps,
        "seed": seed,
        "last_return": float(np.mean(returns)) if returns else None,
        "seconds": round(time.perf_counter() - begun, 1),
    }
