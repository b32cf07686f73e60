"""Populations on the command line."""

from __future__ import annotations

from typing import Any, ClassVar

from allocgym.benchmarks.core.front import Front
from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.population"
SUITES = {
    "toys": Suite(f"{_HOME}.toys:suite", "PBT's toy and the deceptive one (10 s)"),
    "laws": Suite(
        f"{_HOME}.laws:suite", "Multi-Power Law on public curves, stability edge (2 min)"
    ),
    "simulator": Suite(
        f"{_HOME}.simulator:suite", "every scheduler on every scenario (about 6 min)", 100, 30
    ),
    "real": Suite(
        f"{_HOME}.real:suite", "frozen controller on real populations (about 4 min)", 10, 2
    ),
    "curves": Suite(
        "allocgym.benchmarks.curve_budget.curves:suite",
        "early stopping, TaskSet to train, AlgoPerf to test (2 min)",
        100,
        30,
    ),
    "tasks": Suite(
        f"{_HOME}.tasks:suite",
        "which tasks to train on; what a larger model scores (2 min)",
        100,
        20,
    ),
    "speed": Suite(f"{_HOME}.speed:suite", "steps per second, one core (1 min)"),
}


class PopulationFront(Front):
    """See `Front`."""

    problem: ClassVar[str] = "population"
    package: ClassVar[str] = "population"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/Population-v0",)
    scenario: ClassVar[str] = "unknown-edge"
    fallback: ClassVar[str] = "random-search"
    trainers: ClassVar[dict[str, int]] = {"cma": 40, "ppo": 200}
    suites = SUITES

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`."""
        from allocgym.benchmarks.population.simulator import compare_agents, show_comparison

        chosen = list(dict.fromkeys(["random-search", *agents, "tuned-wsd", "oracle"]))
        show_comparison(scenario, compare_agents(scenario, chosen, seeds, overrides))

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        plan, here = keyed.decision, outcome.instance.present[0] & outcome.alive[0]
        n = outcome.instance.present[0].sum()
        copies = [f"{i}<-{d}" for i, d in enumerate(plan.donor[0][:n]) if i != d]
        best = outcome.scores[0][here].min() if here.any() else float("nan")
        return (
            f"steps {plan.steps[0][:n].tolist()}  copies {' '.join(copies) or '-'}  "
            f"best {best:.4f}  alive {int(here.sum())}/{n}"
        )


FRONT = PopulationFront()
