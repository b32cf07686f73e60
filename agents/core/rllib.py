"""RLlib (new API stack) on the native vector environment: the set policy as an RLModule, training.

What comes out is the same `SetPolicy` that Stable-Baselines3 trains, so agent files of either are
interchangeable. Observations are normalised by the problem, not by a connector: RLlib does not restore
filters of remote runners.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from allocgym.agents.core.networks import SetPolicy
from allocgym.envs.core.errors import AllocgymError, missing_extra, unknown

try:
    from ray.exceptions import RayError
    from ray.rllib.algorithms.algorithm import Algorithm
    from ray.rllib.algorithms.appo import APPOConfig
    from ray.rllib.algorithms.ppo import PPOConfig
    from ray.rllib.core.columns import Columns
    from ray.rllib.core.distribution.torch.torch_distribution import TorchDiagGaussian
    from ray.rllib.core.rl_module.apis import ValueFunctionAPI
    from ray.rllib.core.rl_module.rl_module import RLModule, RLModuleSpec
    from ray.rllib.core.rl_module.torch.torch_rl_module import TorchRLModule
except ImportError as error:
    raise missing_extra("ray[rllib]", "ray") from error

ALGORITHMS = ("ppo", "appo")
RETRIES = 10
"""How often training starts again from its newest checkpoint before it gives up."""
MODULE = Path("learner_group", "learner", "rl_module", "default_policy")


class MaskedGaussian(TorchDiagGaussian):
    """A Gaussian per claimant; padded ones contribute nothing to log-probability, entropy or KL."""

    def __init__(self, loc: Any, scale: Any, present: Any) -> None:
        super().__init__(loc=loc, scale=scale)
        self.present = present

    def sample(self, *args: Any, **kwargs: Any) -> Any:
        """Draw actions, 0 for padding."""
        return super().sample(*args, **kwargs) * self.present

    def logp(self, value: Any, **kwargs: Any) -> Any:
        """Log-probability, ``(batch,)``."""
        return (self._dist.log_prob(value) * self.present).sum(-1)

    def entropy(self, **kwargs: Any) -> Any:
        """Entropy, ``(batch,)``."""
        return (self._dist.entropy() * self.present).sum(-1)

    def kl(self, other: Any, **kwargs: Any) -> Any:
        """Kullback-Leibler divergence from ``other``, ``(batch,)``."""
        each = torch.distributions.kl_divergence(self._dist, other._dist)
        return (each * self.present).sum(-1)

    @classmethod
    def from_logits(cls, logits: Any, **kwargs: Any) -> MaskedGaussian:
        """Split what the module returns: means, log deviations, presence."""
        loc, log_std, present = logits.chunk(3, dim=-1)
        return cls(loc, log_std.exp(), present)


class SetRLModule(TorchRLModule, ValueFunctionAPI):
    """The set-equivariant policy as an RLModule; ``model_config``: hidden, skip, log_std."""

    def setup(self) -> None:
        """Build the policy for the observation space."""
        space: Any = self.observation_space
        config: Any = self.model_config
        self.set_policy = SetPolicy(
            space["claimants"].shape[-1],
            space["context"].shape[-1],
            config.get("hidden", 48),
            recurrent=False,
            skip={int(k): v for k, v in (config.get("skip") or {}).items()},
        )
        self.log_std = torch.nn.Parameter(torch.tensor(float(config.get("log_std", -1.5))))
        self.action_dist_cls = MaskedGaussian

    def _decide(self, batch: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        tensors = {k: v.float() for k, v in batch[Columns.OBS].items()}
        mean, value, _ = self.set_policy(tensors)
        return mean, value, tensors["present"]

    def _forward(self, batch: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
        mean, _, present = self._decide(batch)
        spread = self.log_std.expand_as(mean)
        return {Columns.ACTION_DIST_INPUTS: torch.cat([mean, spread, present], -1)}

    def compute_values(self, batch: Mapping[str, Any], embeddings: Any = None) -> Any:
        """Value of each observation, ``(batch,)``."""
        return self._decide(batch)[1]


def configure(
    env_id: str,
    env_arguments: Mapping[str, Any],
    algorithm: str = "ppo",
    num_envs: int = 256,
    runners: int = 0,
    seed: int = 0,
    skip: Mapping[int, float] | None = None,
    hidden: int = 48,
) -> Any:
    """Configure an RLlib algorithm on a native vector environment.

    Args:
        env_id: such as ``"allocgym:allocgym/DataMixing-v0"``.
        env_arguments: of the environment, by keyword.
        algorithm: ``"ppo"``, or ``"appo"`` (off-policy with V-trace, asynchronous).
        num_envs: of each runner.
        runners: remote environment runners; 0 samples in this process.
        seed: of weights and episodes.
        skip: see `SetPolicy`.
        hidden: width of the policy.

    Raises:
        AllocgymError: no algorithm of that name, or an environment without a set-policy observation.
    """
    if algorithm not in ALGORITHMS:
        raise unknown("algorithm", algorithm, ALGORITHMS)
    # RLlib resets in the step after an episode's end.
    arguments = {**env_arguments, "autoreset_mode": "next_step"}
    one: Any = gym.make_vec(env_id, num_envs=1, **arguments)
    observations, actions = one.single_observation_space, one.single_action_space
    horizon = one.unwrapped.backend.spec.horizon
    one.close()
    if not isinstance(actions, gym.spaces.Box) or "claimants" not in getattr(
        observations, "spaces", {}
    ):
        raise AllocgymError(
            f"env: {env_id} has no continuous action per claimant; RLlib is not set up for it"
        )
    batch = 2 * horizon * num_envs * max(runners, 1)
    config: Any = PPOConfig() if algorithm == "ppo" else APPOConfig()
    config = (
        config.environment(
            env_id,
            env_config=arguments,
            observation_space=observations,
            action_space=actions,
            disable_env_checking=True,
        )
        .env_runners(
            num_env_runners=runners,
            num_envs_per_env_runner=num_envs,
            gym_env_vectorize_mode=gym.VectorizeMode.VECTOR_ENTRY_POINT,
            rollout_fragment_length=2 * horizon if algorithm == "ppo" else horizon,
        )
        # Runners that are lost with their node are started elsewhere; the others go on.
        .fault_tolerance(restart_failed_env_runners=True)
        .learners(num_learners=0)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=SetRLModule,
                model_config={
                    "hidden": hidden,
                    "skip": {str(k): v for k, v in (skip or {}).items()},
                },
            )
        )
        .debugging(seed=seed, log_level="ERROR")
    )
    shared: dict[str, Any] = {"gamma": 1.0, "lr": 1e-3, "grad_clip": 0.5}
    if algorithm == "ppo":
        return config.training(
            **shared,
            lambda_=0.95,
            train_batch_size_per_learner=batch,
            minibatch_size=min(4096, batch),
            num_epochs=4,
            use_kl_loss=False,
            entropy_coeff=0.0,
            vf_clip_param=10.0,
        )
    return config.training(
        **shared, train_batch_size_per_learner=horizon * num_envs, entropy_coeff=0.0
    )


def train_rllib(
    env_id: str,
    env_arguments: Mapping[str, Any],
    steps: int,
    algorithm: str = "ppo",
    num_envs: int = 256,
    runners: int = 0,
    seed: int = 0,
    skip: Mapping[int, float] | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[SetPolicy, dict[str, Any]]:
    """Train the set policy with RLlib.

    Args:
        env_id: see `configure`.
        env_arguments: see `configure`.
        steps: environment steps in all.
        algorithm: see `configure`.
        num_envs: see `configure`.
        runners: see `configure`.
        seed: see `configure`.
        skip: see `SetPolicy`.
        checkpoint: folder; an existing checkpoint there is taken up, and one is written after every
            iteration. Where an iteration fails all the same, training starts again from it.
        progress: called with (steps so far, mean return).

    Returns:
        The policy, and what should be recorded of the training.
    """
    begun = time.perf_counter()
    config = configure(env_id, env_arguments, algorithm, num_envs, runners, seed, skip)
    algo: Algorithm = config.build_algo()
    done = restarts = 0
    try:
        _take_up(algo, checkpoint)
        sampling = learning = 0.0
        while done < steps:
            try:
                result = algo.train()
            except RayError:
                if checkpoint is None or restarts == RETRIES:
                    raise
                restarts += 1
                algo.stop()
                algo = config.copy(copy_frozen=False).build_algo()
                _take_up(algo, checkpoint)
                continue
            sampled = result["env_runners"]
            done = int(sampled.get("num_env_steps_sampled_lifetime", 0))
            timers = result.get("timers", {})
            sampling += float(timers.get("env_runner_sampling_timer", 0.0))
            learning += float(timers.get("learner_update_timer", 0.0))
            if checkpoint is not None:
                algo.save_to_path(str(checkpoint.resolve()))
            if progress is not None:
                progress(done, float(sampled.get("episode_return_mean", float("nan"))))
        module: Any = algo.get_module()
        policy = _copy(module)
    finally:
        algo.stop()
    return policy, {
        "trainer": f"{algorithm.upper()} (RLlib)",
        "steps": done,
        "seed": seed,
        "restarts": restarts,
        "seconds": round(time.perf_counter() - begun, 1),
        "seconds sampling": round(sampling, 1),
        "seconds learning": round(learning, 1),
    }


def _take_up(algo: Algorithm, checkpoint: Path | None) -> None:
    if checkpoint is not None and (checkpoint / MODULE).exists():
        algo.restore_from_path(str(checkpoint.resolve()))


def policy_of(checkpoint: Path) -> SetPolicy:
    """Read the policy out of an RLlib checkpoint; needs neither the environment nor a cluster.

    Raises:
        AllocgymError: no such checkpoint, or one of another module.
    """
    path = Path(checkpoint) / MODULE
    if not path.exists():
        raise AllocgymError(f"{checkpoint}: not an RLlib checkpoint (no {MODULE})")
    module = RLModule.from_checkpoint(str(path.resolve()))
    if not isinstance(module, SetRLModule):
        raise AllocgymError(f"{checkpoint}: holds {type(module).__name__}, a set policy expected")
    return _copy(module)


def _copy(module: Any) -> SetPolicy:
    policy = SetPolicy(**module.set_policy.settings)
    policy.load_state_dict({k: v.detach().cpu() for k, v in module.set_policy.state_dict().items()})
    return policy.eval()
