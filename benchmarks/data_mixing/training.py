"""One function that trains any learned agent of data mixing, for the command line and the suites."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from allocgym.agents.core import agent_file
from allocgym.agents.data_mixing import catalogue
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.registry import make_backend, make_problem
from allocgym.envs.data_mixing.observation import ROW_FEATURES

FOR_REAL_RUNS = {"jitter": 3.0, "steadiness": 0.5}
"""What agents meant for real runs are trained with: domains unlike those the simulator was fitted to, and
a price on changing the mixture; those are what it is least to be trusted on. Chosen on real runs of the
fitted domains (``--suite recipes``)."""
TRAINERS = ("gradient", "ppo", "cma", "rllib-ppo", "rllib-appo")


def train_agent(
    out: Path,
    scenario: str = "continual-pretraining",
    trainer: str = "gradient",
    iterations: int = 300,
    seed: int = 0,
    batch: int = 256,
    n_max: int = 8,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train in the simulator and write an agent file.

    Args:
        out: the agent file.
        scenario: distribution of instances to train on.
        trainer: ``"gradient"`` (through the simulator), ``"ppo"`` (iterations of 20,480 steps),
            ``"cma"`` (the parametric heuristic), ``"rllib-ppo"`` or ``"rllib-appo"`` (RLlib; iterations
            of 5,120 steps).
        iterations: of the trainer.
        seed: of everything random.
        batch: environments at once.
        n_max: rows for domains while training; the agent runs at any other.
        overrides: fields of the scenario; ``steadiness`` of ``"gradient"`` as well, what changing the
            mixture costs in training; ``runners`` of RLlib, remote ones.

    Returns:
        What was recorded of the training.
    """
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    overrides = dict(overrides or {})
    runners = int(overrides.pop("runners", 0))
    steadiness = overrides.pop("steadiness", 0.0)
    if steadiness and trainer != "gradient":
        raise AllocgymError(f"steadiness: only the trainer 'gradient' has it, given {trainer!r}")
    problem: Any = make_problem("data-mixing", n_max=n_max)
    size = 1024 if trainer == "ppo" else batch
    backend = make_backend(problem, "twin", scenario=scenario, num_envs=size, **overrides)
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(f"training ({trainer})", total=iterations)

        def progress(done: int, value: float) -> None:
            completed = done // (2 * size * backend.spec.horizon) if "ppo" in trainer else done
            bar.update(task, completed=completed, description=f"training, gain {value:.4f}")

        note = {"scenario": scenario, "overrides": overrides}
        if trainer == "cma":
            from allocgym.agents.data_mixing import index

            mixer, information = index.train(problem, backend, iterations, seed, progress)
            settings = {"weights": mixer.weights.tolist()}
            agent_file.save(out, problem, "index", settings, None, {**information, **note})
            return information
        # A first policy that mixes in proportion to the objective's weights.
        skip = {
            ROW_FEATURES.index("log prior x K"): -1 / problem.kappa,
            ROW_FEATURES.index("log weight x K"): 1 / problem.kappa,
        }
        if trainer.startswith("rllib"):
            from allocgym.agents.core.rllib import train_rllib

            arguments = {"scenario": scenario, "n_max": n_max, **overrides}
            steps = iterations * 2 * batch * backend.spec.horizon
            held = out.with_suffix(".checkpoint")
            policy, information = train_rllib(
                "allocgym:allocgym/DataMixing-v0",
                arguments,
                steps,
                trainer.partition("-")[2],
                batch,
                runners,
                seed,
                skip,
                checkpoint=held,
                progress=progress,
            )
        elif trainer == "ppo":
            from allocgym.agents.core.sb3 import train_ppo

            env = AllocationVectorEnv(problem, backend)
            steps = iterations * 2 * size * backend.spec.horizon
            policy, information = train_ppo(env, steps, seed, skip, progress=progress)
        else:
            from allocgym.agents.data_mixing import gradient

            policy, information = gradient.train(
                problem, backend, iterations, seed=seed, steadiness=steadiness, progress=progress
            )
    catalogue.save_policy(out, problem, policy, {**information, **note})
    if trainer.startswith("rllib"):
        # Written, so there is nothing left to take up.
        shutil.rmtree(out.with_suffix(".checkpoint"), ignore_errors=True)
    return information
