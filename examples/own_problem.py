"""A problem of one's own: hours over school subjects. One file, one entry.

Run this file in the place of ``allocgym``: ``python examples/own_problem.py train study-hours``, then
``... evaluate study-hours --agents agent.zip`` (or ``list``, ``deploy``, ``resume``, ``bench``). In a
package of its own, one line in ``pyproject.toml`` makes ``allocgym`` itself know it::

    [project.entry-points."allocgym.problems"]
    study-hours = "own_problem:ENTRY"
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.agents.core.agent import Agent
from allocgym.agents.core.parametric import LinearScore
from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Outcome, Shares, Spec
from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record
from allocgym.envs.core.registry import Entry, Suite
from allocgym.envs.core.scenario import Scenario, within
from allocgym.envs.core.share import ShareProblem
from allocgym.simulators.core.simulator import Simulator


@dataclasses.dataclass(eq=False)
class StudyOutcome(Outcome):
    """Marks after a week, ``(batch, n)``, and the hours of a week, ``(batch,)``."""

    marks: np.ndarray
    hours: np.ndarray


@dataclasses.dataclass(eq=False)
class StudyMemory(Record):
    """What is remembered: the marks, the hours of a week, the mean mark."""

    marks: np.ndarray
    hours: np.ndarray
    objective: np.ndarray


class StudyHours(ShareProblem[StudyOutcome, StudyMemory]):
    """Divide each week's hours over subjects; the mean mark counts.

    Args:
        n_max: subjects, 2 to 12.
    """

    id: ClassVar[str] = "study-hours"
    outcome_type = StudyOutcome
    features = ("mark",)
    traces: ClassVar[Mapping[str, str]] = {"marks": "mark (0 to 1)"}
    higher_is_better = True

    def __init__(self, n_max: int = 4) -> None:
        if not 2 <= n_max <= 12:
            raise AllocgymError(f"n_max: 2 to 12 expected, given {n_max}")
        super().__init__(n_max, kappa=3.0)
        self.observation_space = spaces.Dict(
            claimants=spaces.Box(-10, 10, (n_max, 1), np.float32),
            context=spaces.Box(0, 1, (1,), np.float32),
            present=spaces.MultiBinary(n_max),
        )

    def begin(self, outcome: StudyOutcome) -> StudyMemory:
        """See `Problem.begin`."""
        return StudyMemory(outcome.marks, outcome.hours, outcome.marks.mean(1))

    def encode(self, memory: StudyMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        return {
            "claimants": memory.marks[..., None].astype(np.float32),
            "context": memory.objective[:, None].astype(np.float32),
            "present": np.ones(memory.marks.shape, np.int8),
        }

    def amount(self, memory: StudyMemory) -> np.ndarray:
        """See `ShareProblem.amount`: hours of a week."""
        return memory.hours

    def reward(self, before: StudyMemory, after: StudyMemory) -> dict[str, np.ndarray]:
        """See `Problem.reward`: the rise of the mean mark."""
        return {"objective": after.objective - before.objective}

    def scores(self, memory: StudyMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`."""
        return {"mean mark": memory.objective, "lowest mark": memory.marks.min(1)}


@dataclasses.dataclass(frozen=True)
class StudyScenario(Scenario):
    """Weeks, hours in a week, and the range of what an hour brings (marks, at mark 0)."""

    weeks: int = within(8, 1, 1000)
    hours: int = within(20, 1, 10_000)
    rate: tuple[float, float] = within((0.002, 0.05), 0, 1)


SCENARIOS = {s.name: s for s in (StudyScenario("term"), StudyScenario("alike", rate=(0.01, 0.01)))}


@dataclasses.dataclass(eq=False)
class StudyState(Record):
    """Marks, what an hour brings, hours of the last week (all ``(batch, n)``), weeks done."""

    marks: np.ndarray
    rate: np.ndarray
    units: np.ndarray
    week: np.ndarray


class School(Simulator[StudyOutcome, Shares, StudyState]):
    """An hour brings ``rate * (1 - mark)``."""

    scenarios: ClassVar[Mapping[str, StudyScenario]] = SCENARIOS

    def __init__(self, problem: StudyHours, scenario: StudyScenario, num_envs: int = 1) -> None:
        names = tuple(f"subject-{i}" for i in range(problem.n_max))
        super().__init__(
            Spec(
                problem.id,
                scenario.name,
                "twin",
                names,
                len(names),
                "hour",
                scenario.weeks,
                num_envs,
            ),
            problem,
        )
        self.scenario = scenario

    def _budget(self) -> np.ndarray:
        return np.full(self.spec.batch_size, self.scenario.weeks * self.scenario.hours)

    def _fresh(self, seeds: np.ndarray) -> StudyState:
        low, high = self.scenario.rate
        drawn = randomness.uniform(randomness.stream(seeds, "rate", self.spec.n_max), 0).T
        none = np.zeros(drawn.shape, np.int64)
        return StudyState(drawn * 0, low + (high - low) * drawn, none, none[:, 0])

    def _step(self, state: StudyState, decision: Shares) -> StudyState:
        left = (1 - state.marks) * (1 - state.rate) ** decision.units
        return dataclasses.replace(state, marks=1 - left, units=decision.units, week=state.week + 1)

    def _outcome(self, state: StudyState) -> StudyOutcome:
        spent = state.units.sum(1)
        return StudyOutcome(
            spent=spent,
            seconds=3600.0 * spent,
            ready=state.marks >= 0,
            done=state.week >= self.scenario.weeks,
            marks=state.marks,
            hours=np.full(len(spent), self.scenario.hours),
        )


class Evenly(Agent[StudyOutcome, Shares]):
    """The same hours for every subject: the baseline."""

    name = "evenly"

    def ask(self) -> Shares:
        """See `Agent.ask`."""
        shape = self.memory.marks.shape
        return self.problem.round(np.full(shape, 1 / shape[1]), self.memory)


class Learned(LinearScore):
    """Shares in proportion to ``exp(weight x mark)``; the weight is tuned in the simulator."""

    kind = "study-score"
    parameters = ("mark", "lowest mark")
    start = (0.0, 0.0)

    def terms(self) -> np.ndarray:
        """See `LinearScore.terms`."""
        marks = self.memory.marks
        return np.stack([marks, marks == marks.min(1, keepdims=True)], 2)

    def ask(self) -> Shares:
        """See `Agent.ask`."""
        weights = np.exp(np.clip(self.score(), -20, 20))
        return self.problem.round(weights / weights.sum(1, keepdims=True), self.memory)


class StudyHoursEnv(AllocationEnv):
    """Divide a week's hours over subjects (see `StudyHours`)."""

    problem_id = "study-hours"


class StudyHoursVectorEnv(AllocationVectorEnv):
    """Many `StudyHoursEnv` at once."""

    problem_id = "study-hours"


AGENTS = {"evenly": "own_problem:Evenly", "untrained": "own_problem:Learned"}
SUITES = {"weeks": Suite("own_problem:suite", "evenly against the untrained agent", 20, 5)}
ENTRY = Entry(
    id="study-hours",
    env="study/StudyHours-v0",
    environment="own_problem:StudyHoursEnv",
    problem="own_problem:StudyHours",
    backends={"twin": "own_problem:School"},
    scenarios="own_problem:SCENARIOS",
    agents="own_problem:AGENTS",
    scenario="term",
    reference="evenly",
    trainers={"cma": ("own_problem:Learned.trained", 10)},
    suites="own_problem:SUITES",
    kinds={"study-score": "own_problem:Learned"},
)


def suite(options: Any) -> int:
    """Benchmark suite ``weeks``."""
    from allocgym.benchmarks.core import evaluation
    from allocgym.benchmarks.core.suite import Figure, console, finish

    found = evaluation.compare(
        "study-hours", "term", options.agents or ["untrained"], options.seeds
    )
    console.print(evaluation.table(found))
    mean = float(found.scores["evenly"]["mean mark"].mean())
    return finish(
        "weeks", [Figure("evenly: mean mark", mean, "> 0", mean > 0)], {}, time.time(), options
    )


if __name__ == "__main__":
    import sys

    from allocgym.__main__ import main
    from allocgym.envs.core.registry import register

    sys.modules["own_problem"] = sys.modules["__main__"]
    register(ENTRY)
    main()
