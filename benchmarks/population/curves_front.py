"""Curve budgets on the command line: which of many recorded configurations to go on with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.curve_budget import heuristics as stopping
from allocgym.benchmarks.core.front import Front
from allocgym.benchmarks.population.front import SUITES
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.registry import Suite
from allocgym.simulators.curve_budget.backend import TABLES


class CurveFront(Front):
    """See `Front`. The back end is always ``replay``: what was recorded, and nothing else."""

    problem: ClassVar[str] = "curve-budget"
    package: ClassVar[str] = "population"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/CurveBudget-v0",)
    scenario: ClassVar[str] = "synthetic"
    fallback: ClassVar[str] = "asha"
    trainers: ClassVar[dict[str, int]] = {"cma": 25}
    suites: ClassVar[dict[str, Suite]] = {"curves": SUITES["curves"]}

    def scenarios(self) -> list[str]:
        """See `Front.scenarios`."""
        return list(TABLES)

    def agents(self) -> list[str]:
        """See `Front.agents`."""
        return stopping.names()

    def make_agent(self, name: str, problem: Any) -> Agent:
        """See `Front.make_agent`."""
        return stopping.make(name, problem)

    def train(
        self,
        out: Path,
        scenario: str,
        trainer: str,
        iterations: int,
        seed: int,
        overrides: dict[str, Any],
    ) -> dict[str, Any]:
        """See `Front.train`: log time to target, a miss at twice the budget."""
        from rich.console import Console
        from rich.progress import Progress

        problem: Any = make_problem(self.problem)
        backend = make_backend(problem, "replay", scenario=scenario, num_envs=32, **overrides)
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("training", total=iterations)

            def progress(done: int, value: float) -> None:
                bar.update(task, completed=done, description=f"training, {value:.3f}")

            agent, information = stopping.train(problem, backend, iterations, seed, progress)
        note = {**information, "scenario": scenario, "overrides": overrides}
        stopping.save(out, agent, note)
        return note

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`: time to target against every rule, and the loss at the end."""
        from allocgym.benchmarks.core.compare import paired
        from allocgym.benchmarks.core.suite import show
        from allocgym.benchmarks.curve_budget.curves import credit

        problem: Any = make_problem(self.problem)
        chosen = [a for a in dict.fromkeys([*stopping.SCHEDULERS, *agents]) if a != "uniform"]
        times, losses = {}, {}
        for name in chosen:
            back = make_backend(problem, "replay", scenario=scenario, num_envs=seeds, **overrides)
            agent = stopping.make(name, problem)
            times[name] = stopping.time_to_target(rollout(agent, back, np.arange(seeds)))
            losses[name] = np.log(agent.memory.objective)
        parts = credit(times)
        rows = []
        for name in sorted(parts, key=lambda k: -parts[k].mean()):
            d = paired(-parts[name], -parts["random-search"])
            rows.append(
                [
                    name,
                    float(parts[name].mean()),
                    f"{np.isfinite(times[name]).mean():.0%}",
                    float(losses[name].mean()),
                    f"{-d.mean:+.4f} [{-d.high:+.4f}, {-d.low:+.4f}]",
                ]
            )
        columns = [
            "agent",
            "area of the profile",
            "target reached",
            "log final test loss",
            "area more than random-search, 95 %",
        ]
        show(f"{scenario} ({seeds} paired seeds)", columns, rows)

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        n = int(outcome.instance.present[0].sum())
        units = keyed.decision.units[0][:n]
        given = " ".join(f"{i}:+{u}" for i, u in enumerate(units) if u)
        best = outcome.scores[0][:n].min()
        return (
            f"units {given}  closed {int(outcome.closed[0].sum())}  "
            f"best {best:.4f} (target {outcome.instance.target[0]:.4f})"
        )


FRONT = CurveFront()
