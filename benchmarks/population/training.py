"""Training a population controller in the simulator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from allocgym.agents.core import agent_file, catalogue
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.core.errors import unknown

TRAINERS = ("cma", "ppo")


def train_agent(
    out: Path,
    scenario: str = "unknown-edge",
    trainer: str = "cma",
    iterations: int = 40,
    seed: int = 0,
    batch: int = 256,
    n_max: int = 8,
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train on the twin and write an agent file.

    Args:
        out: the agent file.
        scenario: distribution of instances to train on.
        trainer: ``"cma"`` (the parametric controller) or ``"ppo"`` (the set policy).
        iterations: generations, or updates of the policy on one episode of every environment.
        seed: of everything random.
        batch: environments at once.
        n_max: rows for members while training; the agent runs at any other.
        overrides: fields of the scenario.

    Returns:
        What was recorded of the training.
    """
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    problem: Any = make_problem("population", n_max=n_max)
    backend = make_backend(problem, "twin", scenario=scenario, num_envs=batch, **(overrides or {}))
    horizon = backend.spec.horizon
    steps = iterations * horizon * batch
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("training", total=iterations)

        def progress(done: int, value: float) -> None:
            completed = done if trainer == "cma" else done // (horizon * batch)
            bar.update(task, completed=completed, description=f"training, {value:.3f}")

        note = {"scenario": scenario, "overrides": overrides or {}}
        if trainer == "cma":
            from allocgym.agents.population import index

            controller, information = index.train(problem, backend, iterations, seed, progress)
            settings = {"parameters": controller.parameters.tolist()}
            agent_file.save(out, problem, "index", settings, None, {**information, **note})
            return {**information, **note}
        from allocgym.agents.core.sb3 import train_ppo

        policy, information = train_ppo(
            AllocationVectorEnv(problem, backend),
            steps,
            seed,
            progress=progress,
            n_steps=horizon,
            choices=problem.choices.tolist(),
            first=catalogue.first_logits(problem),
            entropy=1e-3,
        )
    catalogue.save_policy(out, problem, policy, {**information, **note})
    return {**information, **note}
