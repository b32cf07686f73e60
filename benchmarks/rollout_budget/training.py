"""One function that trains the learned agents of rollout budgets, for the command line and suites.

``python -m allocgym.benchmarks.rollout_budget.training`` retrains all that ship.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from allocgym.agents.core import agent_file
from allocgym.agents.rollout_budget import catalogue, learned
from allocgym.benchmarks.rollout_budget import curves, episodes
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.errors import unknown
from allocgym.simulators.rollout_budget import scenarios

TRAINERS = ("cma", "ppo")
SHORT = 0.5
"""Episodes are this much shorter in training (the same gain in fewer, larger steps)."""
SHIPPED = (("hard-tail", "rollouts"), ("hetero-cost", "tokens"), ("prereq", "rollouts"))
NEAREST = {
    ("hetero-cost", "seconds"): "hetero-cost-tokens",
    ("hetero-cost", "rollouts"): "hard-tail-rollouts",
    ("qwen1.5b-dsr", "rollouts"): "hard-tail-rollouts",
    ("tiny", "rollouts"): "hard-tail-rollouts",
    ("homogeneous", "rollouts"): "hard-tail-rollouts",
}
"""Which shipped agent stands in where none was trained for a preset and an axis."""


def shipped_name(scenario: str, axis: str) -> str:
    """Name of the shipped agent for a preset and an axis."""
    known = {f"{s}-{a}" for s, a in SHIPPED}
    chosen = f"{scenario}-{axis}"
    if chosen in known:
        return f"learned:{chosen}"
    return "learned:" + NEAREST.get(
        (scenario, axis), NEAREST.get((scenario, "rollouts"), f"{scenario}-rollouts")
    )


def train_agent(
    out: Path,
    scenario: str = "qwen1.5b-dsr",
    trainer: str = "cma",
    iterations: int = 16,
    seed: int = 0,
    axis: str = "rollouts",
    overrides: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train in the simulator and write an agent file.

    Args:
        out: the agent file.
        scenario: preset to train on; its episodes' seeds are used nowhere else.
        trainer: ``"cma"`` (the index, per prompt) or ``"ppo"`` (the set policy, on bins).
        iterations: generations, or for PPO updates of 61,440 steps.
        seed: of everything random.
        axis: what the area under the accuracy is measured over: ``"rollouts"``, ``"tokens"`` or
            ``"seconds"``.
        overrides: fields of the scenario.

    Returns:
        What was recorded of the training.
    """
    if trainer not in TRAINERS:
        raise unknown("trainer", trainer, TRAINERS)
    if axis not in curves.AXES:
        raise unknown("axis", axis, curves.AXES)
    note = {"scenario": scenario, "overrides": overrides or {}, "axis": axis}
    if trainer == "ppo":
        return _train_ppo(out, scenario, iterations, seed, note, overrides or {})
    base = scenarios.make(scenario, **(overrides or {}))
    made = dataclasses.replace(base, horizon=max(int(base.horizon * SHORT), 2), high=64)
    # Room to be cheap: the axis ends where uniform is after the horizon.
    longer = episodes.stretched(made, episodes.LONGER)
    problem: Any = make_problem("rollout-budget", n_max=made.rows, mode="per_prompt")
    reference = episodes.play("uniform", longer, 2**39 + np.arange(24))
    limit = {a: float(v.mean()) for a, v in episodes.limits_of(reference, made.horizon).items()}

    def score(outcomes: list[Any]) -> np.ndarray:
        data = curves.curves(outcomes)
        ends = np.full(len(data["accuracy"]), limit[axis])
        area = curves.area(data[axis], data["accuracy"], ends)
        return area + 0.3 * curves.at(data[axis], data["accuracy"], ends)

    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("training (cma)", total=iterations)

        def progress(done: int, value: float) -> None:
            bar.update(task, completed=done, description=f"training, score {value:.4f}")

        rule, information = learned.train(
            lambda n: make_backend(problem, "twin", scenario=longer, num_envs=n),
            problem,
            score,
            iterations,
            seed,
            progress,
        )
    catalogue.save_rule(out, problem, rule, {**information, **note})
    return information


def _train_ppo(
    out: Path,
    scenario: str,
    iterations: int,
    seed: int,
    note: dict[str, Any],
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """The set policy on bins, by Stable-Baselines3."""
    from allocgym.agents.core.sb3 import train_ppo
    from allocgym.envs.core.environment import AllocationVectorEnv

    problem: Any = make_problem("rollout-budget", n_max=10, mode="bins")
    size = 512
    backend = make_backend(problem, "twin", scenario=scenario, num_envs=size, **overrides)
    env = AllocationVectorEnv(problem, backend)
    policy, information = train_ppo(env, iterations * 2 * size * backend.spec.horizon, seed)
    agent_file.save(
        out, problem, "set-policy", policy.settings, policy.state_dict(), {**information, **note}
    )
    return information


def main() -> None:
    """Retrain every agent that ships (about 10 CPU-minutes)."""
    for scenario, axis in SHIPPED:
        path = catalogue.PRETRAINED / f"{scenario}-{axis}.zip"
        if path.exists() and "--missing" in sys.argv:
            continue
        information = train_agent(path, scenario, axis=axis)
        print(f"{path.name}: {information['cpu seconds']} CPU-s", flush=True)


if __name__ == "__main__":
    main()
