"""Rollout budgets on the command line."""

from __future__ import annotations

from typing import Any, ClassVar

from allocgym.benchmarks.core.front import Front
from allocgym.envs.core.builder import make_problem
from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.rollout_budget"
SUITES = {
    "replay": Suite(f"{_HOME}.replay:suite", "gradient ratios on recorded trajectories (1 min)"),
    "simulator": Suite(
        f"{_HOME}.simulator:suite",
        "every allocator on every preset (about 20 min on two cores)",
        100,
        20,
    ),
    "fidelity": Suite(
        f"{_HOME}.fidelity:suite",
        "held-out prompts and recorded runs against the simulator (4 min)",
    ),
    "real": Suite(
        f"{_HOME}.real:suite", "paired GRPO runs on this machine (about 90 min on two cores)", 10, 2
    ),
    "search": Suite(
        f"{_HOME}.search:suite",
        "prompts solved at a fixed number of rollouts (about 3 min)",
        100,
        20,
    ),
    "algebra": Suite(f"{_HOME}.algebra:suite", "exactness and conservation (about 1 min)"),
    "speed": Suite(f"{_HOME}.speed:suite", "steps and rollouts per CPU-second (about 1 min)"),
}


class RolloutFront(Front):
    """See `Front`."""

    problem: ClassVar[str] = "rollout-budget"
    package: ClassVar[str] = "rollout_budget"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/RolloutBudget-v0",)
    scenario: ClassVar[str] = "qwen1.5b-dsr"
    trainers = {"cma": 16, "ppo": 10}  # noqa: RUF012
    suites = SUITES

    def make_problem(self, backend: str, overrides: dict[str, Any]) -> Any:
        """See `Front.make_problem`: real runs decide for every prompt that is offered."""
        if backend != "real":
            return make_problem(self.problem)
        from allocgym.real_backend.rollout_budget.backend import Setting

        return make_problem(
            self.problem, n_max=overrides.get("rows", Setting.rows), mode="per_prompt"
        )

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`."""
        from allocgym.benchmarks.rollout_budget.simulator import compare, show_comparison

        chosen = list(dict.fromkeys(["uniform", *agents, "oracle"]))
        show_comparison(scenario, compare(scenario, chosen, seeds, overrides), "rollouts")

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        units = keyed.decision.units[0]
        return (
            f"rollouts {units.min()} to {units.max()} a row  accuracy {outcome.heldout[0]:.3f}  "
            f"ratios {outcome.prompt_ratio[0]:.2f} / {outcome.rollout_ratio[0]:.2f}"
        )


FRONT = RolloutFront()
