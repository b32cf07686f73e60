"""What the command line knows of a problem: one `Front` each, looked up by the problem's id."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from allocgym.agents.core.agent import Agent
from allocgym.benchmarks.core.main import Suite
from allocgym.envs.core.contracts import Outcome, Problem, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.registry import load, make_problem

_fronts: dict[str, str] = {}


def register_front(problem: str, target: str) -> None:
    """Name the ``"package.module:object"`` that answers the command line for a problem."""
    _fronts[problem] = target


def fronts() -> list[str]:
    """List the problems the command line knows."""
    return sorted(_fronts)


def front(problem: str) -> Front:
    """Return a problem's front.

    Raises:
        AllocgymError: no problem of that name.
    """
    if problem not in _fronts:
        raise unknown("problem", problem, _fronts)
    found: Front = load(_fronts[problem])
    return found


class Front(ABC):
    """A problem's answers to the command line. Methods import what they need when called.

    Where a problem's rooms follow the package's layout (``scenarios.SCENARIOS`` among its simulators,
    ``names`` and ``make`` in its agents' ``catalogue``, ``train_agent`` in its benchmarks' ``training``),
    only what is its own has to be written.

    Attributes:
        problem: id, such as ``"data-mixing"``.
        package: name of the benchmark package, such as ``"data_mixing"``.
        env_ids: Gymnasium ids.
        scenario: the default one.
        fallback: agent that takes over where another fails.
        trainers: name of each trainer and its default number of iterations; the first is the
            default.
        suites: benchmark suites by name.
    """

    problem: ClassVar[str]
    package: ClassVar[str]
    env_ids: ClassVar[tuple[str, ...]]
    scenario: ClassVar[str]
    fallback: ClassVar[str] = "uniform"
    trainers: ClassVar[Mapping[str, int]]
    suites: ClassVar[Mapping[str, Suite]]

    def scenarios(self) -> list[str]:
        """List the named scenarios."""
        return list(load(f"allocgym.simulators.{self.package}.scenarios:SCENARIOS"))

    def agents(self) -> list[str]:
        """List the agents that have a name."""
        found: list[str] = load(f"allocgym.agents.{self.package}.catalogue:names")()
        return found

    def make_agent(self, name: str, problem: Problem) -> Agent:
        """Build an agent from its name or its file."""
        made: Agent = load(f"allocgym.agents.{self.package}.catalogue:make")(name, problem)
        return made

    def make_problem(self, backend: str, overrides: dict[str, Any]) -> Problem:
        """Build the problem a back end with these arguments decides on."""
        return make_problem(self.problem)

    def train(
        self,
        out: Path,
        scenario: str,
        trainer: str,
        iterations: int,
        seed: int,
        overrides: dict[str, Any],
    ) -> dict[str, Any]:
        """Train in the simulator, write an agent file, return its provenance."""
        work = load(f"allocgym.benchmarks.{self.package}.training:train_agent")
        information: dict[str, Any] = work(
            out, scenario, trainer, iterations, seed, overrides=overrides
        )
        return information

    @abstractmethod
    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """Compare agents in the simulator on paired seeds and print the table."""

    @abstractmethod
    def status(self, spec: Spec, keyed: Any, outcome: Outcome) -> str:
        """Describe one period of a deployment in a line."""

    def calibrate(self, out: Path, processes: int, seeds: int) -> None:
        """Record pilot runs and fit the simulator to them, where the problem has such a fit."""
        raise AllocgymError(
            f"calibrate: {self.problem} is fitted to public data by a script; see its docs page"
        )

    def trace(self, model: str, out: Path, mode: str) -> str:
        """Record what a model needs as an instance of this problem, where that makes sense.

        Args:
            model: a bundled name, or ``module:callable``.
            out: file to write.
            mode: which part of the model's work.

        Returns:
            A line about what was recorded.
        """
        raise AllocgymError(f"trace: {self.problem} takes no instance from a model")


register_front("data-mixing", "allocgym.benchmarks.data_mixing.front:FRONT")
register_front("rollout-budget", "allocgym.benchmarks.rollout_budget.front:FRONT")
register_front("prb-slicing", "allocgym.benchmarks.prb_slicing.front:FRONT")
register_front("population", "allocgym.benchmarks.population.front:FRONT")
register_front("curve-budget", "allocgym.benchmarks.population.curves_front:FRONT")
register_front("memory-mapping", "allocgym.benchmarks.memory_mapping.front:FRONT")
register_front("activation-plan", "allocgym.benchmarks.memory_mapping.side_fronts:ACTIVATION")
register_front("packing", "allocgym.benchmarks.memory_mapping.side_fronts:PACKING")
register_front("strategy-selection", "allocgym.benchmarks.memory_mapping.side_fronts:SELECTION")
