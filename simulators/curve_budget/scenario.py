"""Named distributions of curve budgets: the words."""

from __future__ import annotations

import dataclasses

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within

POINTS = 51
"""Points of a curve: the first before training, then one a unit."""
COLLECTIONS = ("synthetic", "taskset", "algoperf")
"""Where curves come from; see `table`."""


@dataclasses.dataclass(frozen=True)
class CurveScenario(Scenario):
    """A distribution of instances: a task, some of its configurations, a budget.

    Attributes:
        curves: where they were recorded, one of `COLLECTIONS`.
        configurations: n.
        full: budget, in whole curves.
        grant: units a period.
        tasks: names of tasks to draw from; all where empty.
    """

    curves: str = "synthetic"
    configurations: int = within(16, 2, 64)
    full: float = within(4.0, 1 / (POINTS - 1), 64)
    grant: int = within(2, 1, 64 * (POINTS - 1))
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.curves not in COLLECTIONS:
            raise unknown("curves", self.curves, COLLECTIONS)
        if self.full > self.configurations:
            raise AllocgymError(f"full: at most {self.configurations} expected, given {self.full}")


SCENARIOS: dict[str, CurveScenario] = {
    s.name: s
    for s in (
        CurveScenario("synthetic"),
        CurveScenario("taskset", "taskset"),
        CurveScenario("algoperf", "algoperf"),
    )
}
