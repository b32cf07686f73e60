"""The other memory problems on the command line: packing, activation plans, strategy selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.agents.activation_plan import heuristics as plans
from allocgym.agents.core.agent import Agent
from allocgym.agents.packing import heuristics as packings
from allocgym.agents.strategy_selection import heuristics as selecting
from allocgym.benchmarks.core.front import Front
from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.registry import Suite
from allocgym.simulators.activation_plan import backend as activation_steps
from allocgym.simulators.packing import backend as packing_instances
from allocgym.simulators.strategy_selection import backend as selection_instances

_HOME = "allocgym.benchmarks.memory_mapping"


class SideFront(Front):
    """A front whose agents are compared by the objective at the end of an episode.

    Attributes:
        reference: agent that the others are held against.
        unit: the objective's name in tables, and what it is multiplied by.
    """

    package: ClassVar[str] = "memory_mapping"
    reference: ClassVar[str]
    unit: ClassVar[tuple[str, float]]

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`."""
        from allocgym.agents.core.agent import rollout
        from allocgym.benchmarks.core.compare import paired
        from allocgym.benchmarks.core.suite import show
        from allocgym.envs.core.builder import make_backend, make_problem

        arguments = {k: overrides.pop(k) for k in ("n_max",) if k in overrides}
        problem: Any = make_problem(self.problem, **arguments)
        asked = [a for a in agents if a != "uniform"]
        found = {}
        for name in dict.fromkeys([self.reference, *asked]):
            back = make_backend(problem, "twin", scenario=scenario, num_envs=seeds, **overrides)
            agent = self.make_agent(name, problem)
            last = rollout(agent, back, np.arange(seeds))[-1]
            found[name] = problem.begin(last).objective * self.unit[1]
        rows = []
        for name, got in sorted(found.items(), key=lambda item: -item[1].mean()):
            d = paired(-got, -found[self.reference])
            text = f"{-d.mean:+.3f} [{-d.high:+.3f}, {-d.low:+.3f}]"
            rows.append([name, float(got.mean()), text])
        columns = ["agent", self.unit[0], f"more than {self.reference}, 95 %"]
        show(f"{scenario} ({seeds} paired seeds)", columns, rows)


class PackingFront(SideFront):
    """See `Front`."""

    problem: ClassVar[str] = "packing"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/Packing-v0",)
    scenario: ClassVar[str] = "tight"
    fallback: ClassVar[str] = "area"
    reference: ClassVar[str] = "size"
    unit: ClassVar[tuple[str, float]] = ("minus height / capacity", 1.0)
    trainers: ClassVar[dict[str, int]] = {"cma": 200}
    suites: ClassVar[dict[str, Suite]] = {
        "packing": Suite(
            "allocgym.benchmarks.packing.packing:suite",
            "MiniMalloc's 11 inputs and generated ones (about 8 min)",
        )
    }

    def scenarios(self) -> list[str]:
        """See `Front.scenarios`."""
        return list(packing_instances.SCENARIOS)

    def agents(self) -> list[str]:
        """See `Front.agents`."""
        return packings.names()

    def make_agent(self, name: str, problem: Problem) -> Agent:
        """See `Front.make_agent`."""
        made: Any = problem
        return packings.Packer(made, name)

    def train(
        self,
        out: Path,
        scenario: str,
        trainer: str,
        iterations: int,
        seed: int,
        overrides: dict[str, Any],
    ) -> dict[str, Any]:
        """See `Front.train`: generated instances of several sizes, with and without slack."""
        members = int(overrides.get("members", 3))

        def draw(number: int) -> Any:
            kind = ("tight", "slack")[number % 2]
            return packing_instances.generated(kind, number, 32 + 16 * (number % 9))

        policy, provenance = packings.train(draw, members, iterations, seed)
        policy.save(out, provenance)
        return provenance

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        height = outcome.state.height[0] / outcome.state.capacity[0]
        return f"{int(outcome.step[0])} placed, height {height:.3f} of the capacity"


PACKING = PackingFront()


class SelectionFront(SideFront):
    """See `Front`."""

    problem: ClassVar[str] = "strategy-selection"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/StrategySelection-v0",)
    scenario: ClassVar[str] = "train"
    fallback: ClassVar[str] = "least-memory"
    reference: ClassVar[str] = "look-ahead"
    unit: ClassVar[tuple[str, float]] = ("minus log10 of cost (-10: not allowed)", 1.0)
    trainers: ClassVar[dict[str, int]] = {"cma": 40}
    suites: ClassVar[dict[str, Suite]] = {
        "strategy": Suite(
            "allocgym.benchmarks.strategy_selection.strategy:suite",
            "IOPDDL B, G and V, generated ones (about 5 min)",
        )
    }

    def scenarios(self) -> list[str]:
        """See `Front.scenarios`."""
        return list(selection_instances.SCENARIOS)

    def agents(self) -> list[str]:
        """See `Front.agents`."""
        return list(selecting.NAMES)

    def make_agent(self, name: str, problem: Problem) -> Agent:
        """See `Front.make_agent`."""
        made: Any = problem
        return selecting.Selector(made, name)

    def train(
        self,
        out: Path,
        scenario: str,
        trainer: str,
        iterations: int,
        seed: int,
        overrides: dict[str, Any],
    ) -> dict[str, Any]:
        """See `Front.train`."""
        from allocgym.envs.core.builder import make_backend, make_problem

        problem = make_problem(self.problem)

        def make(count: int) -> Any:
            return make_backend(problem, "twin", scenario=scenario, num_envs=count, **overrides)

        weights, provenance = selecting.train(make, iterations, seed)
        provenance["scenario"] = scenario
        selecting.save(out, weights, provenance)
        return provenance

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        word = ", not allowed" if outcome.broken[0] else ""
        return (
            f"node {int(outcome.step[0])}/{int(outcome.total[0])}, cost {outcome.cost[0]:.4g}{word}"
        )


SELECTION = SelectionFront()


class ActivationFront(SideFront):
    """See `Front`."""

    problem: ClassVar[str] = "activation-plan"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/ActivationPlan-v0",)
    scenario: ClassVar[str] = "gpt-gpu"
    fallback: ClassVar[str] = "recompute-all"
    reference: ClassVar[str] = "cheapest-recompute"
    unit: ClassVar[tuple[str, float]] = ("minus added time %", 100.0)
    trainers: ClassVar[dict[str, int]] = {"masked-ppo": 150_000}
    suites: ClassVar[dict[str, Suite]] = {
        "activation": Suite(
            "allocgym.benchmarks.activation_plan.activation:suite",
            "plans against torch's and simple rules, for real (about 8 min)",
        ),
        "real": Suite(
            "allocgym.benchmarks.activation_plan.activation:real",
            "20 random plans a model on a CPU (about 6 min)",
        ),
        "gpu": Suite(
            "allocgym.benchmarks.activation_plan.gpu:suite",
            "copies, random plans, GPT-2 124M on CUDA (not run here)",
        ),
    }

    def scenarios(self) -> list[str]:
        """See `Front.scenarios`."""
        return list(activation_steps.SCENARIOS)

    def agents(self) -> list[str]:
        """See `Front.agents`."""
        return list(plans.RULES)

    def make_agent(self, name: str, problem: Problem) -> Agent:
        """See `Front.make_agent`."""
        made: Any = problem
        return plans.PlanAgent(made, name)

    def train(
        self,
        out: Path,
        scenario: str,
        trainer: str,
        iterations: int,
        seed: int,
        overrides: dict[str, Any],
    ) -> dict[str, Any]:
        """See `Front.train`; without a scenario, on ``"mixed"``."""
        from allocgym.benchmarks.memory_mapping.training import masked

        where = "mixed" if scenario == self.scenario else scenario
        settings = {**overrides, "illegal": "recompute"}
        return masked(self.env_ids[0], out, where, iterations, seed, settings)

    def calibrate(self, out: Path, processes: int, seeds: int) -> None:
        """See `Front.calibrate`: one process at a time, for the sake of the timings."""
        from allocgym.benchmarks.activation_plan.calibrate import record

        record(out, list(activation_steps.RECORDED), max(seeds, 2))

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        added = outcome.time[0] / outcome.keep_time[0] - 1
        share = outcome.peak[0] / outcome.profile.budget[0]
        return f"group {int(outcome.step[0])}, {100 * added:+.2f} % time, peak {share:.3f} of the budget"


ACTIVATION = ActivationFront()
