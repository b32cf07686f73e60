"""Named sources of instances to pack."""

from __future__ import annotations

import dataclasses

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within

SOURCES = ("tight", "slack", "stacked", "minimalloc", "file")


@dataclasses.dataclass(frozen=True)
class PackingScenario(Scenario):
    """Instances that episodes are drawn from.

    Attributes:
        source: ``"tight"`` (a rectangle cut up), ``"slack"`` (a sixth of its pieces taken out),
            ``"stacked"`` (all alive at once), ``"minimalloc"`` (the 11 public inputs) or ``"file"``.
        buffers: of generated instances, up to ``n_max`` (default: 3/4 of it).
        file: CSV file of an instance of one's own.
        capacity: bytes of memory for that instance.
    """

    source: str = "tight"
    buffers: int | None = within(None, 1, 4096)
    file: str | None = None
    capacity: int | None = within(None, 1, 2**40)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in SOURCES:
            raise unknown("source", self.source, SOURCES)
        if self.source != "file" and (self.file is not None or self.capacity is not None):
            raise AllocgymError(f"file, capacity: scenario 'file' expected, given {self.name!r}")


SCENARIOS: dict[str, PackingScenario] = {s: PackingScenario(s, s) for s in SOURCES}
