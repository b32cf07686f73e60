"""Named sources of networks whose strategies are selected."""

from __future__ import annotations

import dataclasses

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within

INSTANCES = ("B", "G", "V")
"""The contest's."""


@dataclasses.dataclass(frozen=True)
class SelectionScenario(Scenario):
    """Networks that episodes are drawn from.

    Attributes:
        nodes: of generated networks.
        level: the control: every strategy costs the same and edges cost nothing.
        contest: instances of the ASPLOS/EuroSys contest are drawn instead.
        instance: one of `INSTANCES` instead of a draw.
    """

    nodes: int = within(24, 1, 4096)
    level: bool = False
    contest: bool = False
    instance: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.instance is not None and not self.contest:
            raise AllocgymError(f"instance: scenario 'iopddl' expected, given {self.name!r}")
        if self.instance is not None and self.instance not in INSTANCES:
            raise unknown("instance", self.instance, INSTANCES)


SCENARIOS: dict[str, SelectionScenario] = {
    s.name: s
    for s in (
        SelectionScenario("train"),
        SelectionScenario("test", 60),
        SelectionScenario("level", level=True),
        SelectionScenario("iopddl", contest=True),
    )
}
