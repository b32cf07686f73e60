"""Stable-Baselines3 on the native vector environment: the adapter, the set policy, PPO."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.networks import SetPolicy
from allocgym.agents.core.on_policy import learn
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.core.errors import AllocgymError


class SB3VecEnv(VecEnv):
    """A native `AllocationVectorEnv` as an SB3 `VecEnv`, without a Python loop over environments.

    Args:
        env: in ``"same_step"`` autoreset mode (SB3 expects the terminal observation in the info of
            the step that ends an episode).
        flatten: one flat ``Box`` observation instead of a ``Dict`` (for plain MLP policies).
    """

    def __init__(self, env: AllocationVectorEnv, flatten: bool = False) -> None:
        if env.autoreset_mode != AutoresetMode.SAME_STEP:
            raise AllocgymError("env: autoreset_mode 'same_step' is needed by Stable-Baselines3")
        self.env = env
        self.flatten = flatten
        space = env.single_observation_space
        if flatten:
            space = spaces.utils.flatten_space(space)
            space = spaces.Box(-10, 10, space.shape, np.float32)
        super().__init__(env.num_envs, space, env.single_action_space)
        # SB3 walks over the infos every step: most of them are this one empty dict.
        self._empty: list[dict[str, Any]] = [{} for _ in range(env.num_envs)]
        self._returns = np.zeros(env.num_envs)
        self._lengths = np.zeros(env.num_envs, np.int64)
        self._begun = time.perf_counter()
        self._actions: np.ndarray = np.zeros(0)

    def _observe(self, observation: dict[str, np.ndarray]) -> Any:
        if not self.flatten:
            return observation
        n = self.num_envs
        return np.concatenate(
            [np.asarray(observation[k]).reshape(n, -1) for k in sorted(observation)], 1
        ).astype(np.float32, copy=False)

    def reset(self) -> Any:
        """Start every environment anew, with the seeds given to `seed` if any."""
        seed = self._seeds[0] if self._seeds else None
        observation, _ = self.env.reset(seed=None if seed is None else int(seed))
        self._reset_seeds()
        self._returns[:] = 0
        self._lengths[:] = 0
        return self._observe(observation)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Advance the batch."""
        observation, reward, done, _, info = self.env.step(self._actions)
        self._returns += reward
        self._lengths += 1
        infos = self._empty
        if done.any():
            infos = list(self._empty)
            final = self._observe(info["final_obs"])
            seconds = round(time.perf_counter() - self._begun, 6)
            for i in np.flatnonzero(done):
                last = {k: v[i] for k, v in final.items()} if isinstance(final, dict) else final[i]
                infos[i] = {
                    "terminal_observation": last,
                    "TimeLimit.truncated": False,
                    "episode": {"r": self._returns[i], "l": int(self._lengths[i]), "t": seconds},
                }
            self._returns[done] = 0
            self._lengths[done] = 0
        return self._observe(observation), reward.astype(np.float32), done, infos

    def get_state(self) -> dict[str, Any]:
        """Return what the running episodes are, and what they have come to."""
        return {"env": self.env.get_state(), "sums": (self._returns, self._lengths)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of an environment made alike."""
        self.env.set_state(state["env"])
        self._returns, self._lengths = (array.copy() for array in state["sums"])

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once per index."""
        return [getattr(self.env, attr_name, None) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the (one, shared) vector environment."""
        setattr(self.env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> Any:
        """Call a method of the vector environment, once."""
        result = getattr(self.env, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Sub-environments are columns of arrays; none is wrapped."""
        return [False for _ in self._get_indices(indices)]


class SetActorCritic(ActorCriticPolicy):
    """The set-equivariant policy for SB3: a Gaussian per claimant.

    Padded dimensions contribute nothing to log-probability or entropy.
    """

    def __init__(
        self,
        *args: Any,
        hidden: int = 48,
        skip: dict[int, float] | None = None,
        log_std: float = -1.5,
        **kwargs: Any,
    ) -> None:
        self._hidden, self._skip, self._first_std = hidden, skip, log_std
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        rows = space["claimants"].shape[-1]
        context = space["context"].shape[-1]
        self.set_policy = SetPolicy(rows, context, self._hidden, recurrent=False, skip=self._skip)
        self.log_std = torch.nn.Parameter(torch.tensor(self._first_std))
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _decide(self, obs: Any) -> tuple[Any, torch.Tensor, torch.Tensor]:
        tensors = {k: v.float() for k, v in obs.items()}
        mean, value, _ = self.set_policy(tensors)
        return torch.distributions.Normal(mean, self.log_std.exp()), value, tensors["present"]

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        """Return actions, values and log-probabilities."""
        normal, value, present = self._decide(obs)
        actions = (normal.mean if deterministic else normal.rsample()) * present
        return actions, value[:, None], (normal.log_prob(actions) * present).sum(1)

    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> Any:
        """Return values, log-probabilities and entropy of given actions."""
        normal, value, present = self._decide(obs)
        log_prob = (normal.log_prob(actions) * present).sum(1)
        return value[:, None], log_prob, (normal.entropy() * present).sum(1)

    def predict_values(self, obs: Any) -> torch.Tensor:
        """Return values alone."""
        return self._decide(obs)[1][:, None]

    def _predict(self, observation: Any, deterministic: bool = False) -> torch.Tensor:
        actions: torch.Tensor = self.forward(observation, deterministic)[0]
        return actions


class SetChooser(SetActorCritic):
    """The set-equivariant policy for ``MultiDiscrete`` actions that repeat the same choices a claimant.

    Args:
        choices: sizes of one claimant's choices.
        first: logits of every choice before training; zeros by default.
    """

    def __init__(
        self,
        *args: Any,
        choices: Sequence[int],
        first: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._choices, self._first = list(choices), first
        super().__init__(*args, **kwargs)

    def _build(self, lr_schedule: Any) -> None:
        space: Any = self.observation_space
        rows, context = space["claimants"].shape[-1], space["context"].shape[-1]
        self.set_policy = SetPolicy(
            rows, context, self._hidden, recurrent=False, choices=self._choices
        )
        if self._first is not None:
            self.set_policy.head.bias.data.copy_(torch.tensor(self._first))
        optimizer: Any = self.optimizer_class
        self.optimizer = optimizer(self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs)

    def _choose(self, obs: Any) -> tuple[list[Any], torch.Tensor, torch.Tensor]:
        tensors = {k: v.float() for k, v in obs.items()}
        logits, value, _ = self.set_policy(tensors)
        each = [torch.distributions.Categorical(logits=x) for x in logits.split(self._choices, -1)]
        return each, value, tensors["present"]

    def forward(self, obs: Any, deterministic: bool = False) -> Any:
        """Return actions, values and log-probabilities."""
        each, value, present = self._choose(obs)
        picked = [d.logits.argmax(-1) if deterministic else d.sample() for d in each]
        log_prob = sum((d.log_prob(a) * present).sum(1) for d, a in zip(each, picked, strict=True))
        return torch.stack(picked, -1).flatten(1), value[:, None], log_prob

    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> Any:
        """Return values, log-probabilities and entropy of given actions."""
        each, value, present = self._choose(obs)
        picked = actions.long().view(len(actions), -1, len(self._choices)).unbind(-1)
        log_prob = sum((d.log_prob(a) * present).sum(1) for d, a in zip(each, picked, strict=True))
        entropy = sum((d.entropy() * present).sum(1) for d in each)
        return value[:, None], log_prob, entropy

    def predict_values(self, obs: Any) -> torch.Tensor:
        """Return values alone."""
        return self._choose(obs)[1][:, None]


def train_ppo(
    env: AllocationVectorEnv,
    steps: int,
    seed: int = 0,
    skip: dict[int, float] | None = None,
    hidden: int = 48,
    progress: Callable[[int, float], None] | None = None,
    gamma: float = 1.0,
    n_steps: int | None = None,
    rate: float = 1e-3,
    choices: Sequence[int] | None = None,
    first: Sequence[float] | None = None,
    entropy: float = 0.0,
    checkpoint: Checkpoint | None = None,
) -> tuple[SetPolicy, dict[str, Any]]:
    """Train the set policy by PPO.

    Args:
        env: native vector environment.
        steps: environment steps in all.
        seed: of weights, actions and episodes.
        skip: see `SetPolicy`.
        hidden: width.
        progress: called with (steps so far, mean return).
        gamma: discount; 1 for objectives that are only known at the end.
        n_steps: of each environment between updates (default: two episodes).
        rate: first learning rate; it falls to a hundredth.
        choices: sizes of one claimant's discrete choices, for ``MultiDiscrete`` actions.
        first: see `SetChooser`.
        entropy: weight of the entropy bonus.
        checkpoint: where it goes on from, and keeps where it stands; see `on_policy`.

    Returns:
        The policy, and what should be recorded of the training.
    """
    checkpoint = checkpoint or Checkpoint()
    begun = time.perf_counter() - checkpoint.seconds
    horizon = env.backend.spec.horizon
    length = n_steps or 2 * horizon
    kind: Any = SetActorCritic if choices is None else SetChooser
    shape: dict[str, Any] = {"skip": skip, "hidden": hidden}
    if choices is not None:
        shape = {"hidden": hidden, "choices": choices, "first": first}
    model = PPO(
        kind,
        SB3VecEnv(env),
        n_steps=length,
        ent_coef=entropy,
        batch_size=min(4096, length * env.num_envs),
        n_epochs=4,
        learning_rate=lambda left: rate * left + rate / 100,
        gamma=gamma,
        gae_lambda=0.95,
        policy_kwargs=shape,
        seed=seed,
        device="cpu",
    )
    learn(model, steps, progress, checkpoint)
    policy = model.policy.set_policy
    assert isinstance(policy, SetPolicy)
    return policy.eval(), {
        "trainer": "PPO (Stable-Baselines3)",
        "steps": steps,
        "seed": seed,
        "episodes": steps // horizon,
        "seconds": round(time.perf_counter() - begun, 1),
    }
