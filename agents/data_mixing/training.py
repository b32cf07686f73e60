"""Trainers of data mixing."""

from __future__ import annotations

from typing import Any

from allocgym.agents.core.training import Trained, Training
from allocgym.agents.data_mixing.index import IndexMixer
from allocgym.envs.core.contracts import Backend
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.core.registry import entry
from allocgym.envs.data_mixing.observation import ROW_FEATURES

FOR_REAL_RUNS = {"jitter": 3.0, "steadiness": 0.5}
"""What agents meant for real runs are trained with: domains unlike those the simulator was fitted to, and
a price on changing the mixture; those are what it is least to be trusted on. Chosen on real runs of the
fitted domains (``--suite recipes``)."""
BATCH = 256
"""Environments at once."""


def by_gradients(training: Training) -> Trained:
    """Gradients through the simulator.

    Takes ``steadiness``, what changing the mixture costs, and ``batch``, environments at once.
    """
    from allocgym.agents.data_mixing import gradient

    steadiness = training.take("steadiness", 0.0)
    backend: Any = training.build(training.take("batch", BATCH))
    policy, information = gradient.train(
        backend.problem,
        backend,
        training.iterations,
        seed=training.seed,
        steadiness=steadiness,
        progress=training.progress,
        checkpoint=training.checkpoint,
    )
    return Trained(policy, backend.problem, information)


def by_evolution(training: Training) -> Trained:
    """CMA-ES on the parametric heuristic."""
    return IndexMixer.trained(training, BATCH)


def by_ppo(training: Training) -> Trained:
    """PPO of Stable-Baselines3 on the set policy; an iteration is two episodes of 1,024 environments."""
    from allocgym.agents.core.sb3 import train_ppo

    backend = training.build(1024)
    once = 2 * 1024 * backend.spec.horizon
    policy, information = train_ppo(
        AllocationVectorEnv(backend=backend),
        training.iterations * once,
        training.seed,
        _first_policy(backend),
        checkpoint=training.checkpoint,
        progress=lambda steps, score: training.progress(steps // once, score),
    )
    return Trained(policy, backend.problem, information)


def by_rllib(training: Training) -> Trained:
    """RLlib on the set policy; an iteration is two episodes of 256 environments.

    Takes ``runners``, remote ones (0: in this process). Its checkpoints are RLlib's own.
    """
    from allocgym.agents.core.rllib import train_rllib

    runners = int(training.take("runners", 0))
    backend = training.build(1)
    once = 2 * BATCH * backend.spec.horizon
    held = training.checkpoint.folder and training.checkpoint.folder / "rllib"
    policy, information = train_rllib(
        f"allocgym:{entry(training.problem).env}",
        {"scenario": training.scenario, **training.arguments},
        training.iterations * once,
        training.trainer.partition("-")[2],
        BATCH,
        runners,
        training.seed,
        _first_policy(backend),
        checkpoint=held,
        progress=lambda steps, score: training.progress(steps // once, score),
    )
    return Trained(policy, backend.problem, information)


def _first_policy(backend: Backend) -> dict[int, float]:
    """Linear terms of a policy that starts out mixing in proportion to the objective's weights."""
    kappa = backend.problem.kappa  # type: ignore[attr-defined]
    prior, weight = (ROW_FEATURES.index(f"log {k} x K") for k in ("prior", "weight"))
    return {prior: -1 / kappa, weight: 1 / kappa}
