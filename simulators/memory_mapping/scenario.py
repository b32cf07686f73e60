"""Named sets of programs and machines for the mapping game."""

from __future__ import annotations

import dataclasses

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within

TRAIN = (
    "gpt-256-2-256",
    "gpt-512-2-256",
    "gpt-384-3-192",
    "gpt-256-3-384",
    "gpt-640-2-128",
    "moe-256-1-256-4",
    "moe-384-2-128-4",
    "moe-512-1-256-8",
    "moe-256-2-384-2",
    "resnet-56-32-4-1",
    "resnet-56-64-3-2",
    "resnet-28-64-3-2",
    "resnet-64-48-4-1",
    "resnet-80-32-3-1",
)
"""Small programs of three families: family and sizes, see `program`."""

TEST = (
    "gpt-512-4-256",
    "gpt-768-6-384",
    "moe-512-3-256-8",
    "resnet-112-64-4-2",
    "unet-64-32-3",
    "unet-96-64-4",
    "vit-384-6-196",
    "vit-512-4-324",
)
"""Larger programs of those families, and two families that training never sees."""

BAND = (0.3, 0.5, 0.8)
"""Capacities as fractions of a program's peak: where buffers compete."""


@dataclasses.dataclass(frozen=True)
class MappingScenario(Scenario):
    """Programs and machines that episodes are drawn from.

    Attributes:
        programs: bundled ones, of `TRAIN` and `TEST`.
        fractions: capacities of fast memory over a program's peak, up to 64 of them.
        compute: floating-point operations a second.
        trace: file of a recorded program instead of the bundled ones.
    """

    programs: tuple[str, ...] = TRAIN
    fractions: tuple[float, ...] = within(BAND, 1e-3, 1e3)
    compute: float = within(138e12, 1e6, 1e24)
    trace: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.fractions) <= 64:
            raise AllocgymError(f"fractions: 1 to 64 numbers expected, given {len(self.fractions)}")
        for name in self.programs:
            if name not in TRAIN and name not in TEST:
                raise unknown("programs", name, (*TRAIN, *TEST))


SCENARIOS: dict[str, MappingScenario] = {
    s.name: s
    for s in (
        MappingScenario("train"),
        MappingScenario("test", TEST),
        MappingScenario("compute-bound", TEST, compute=138e7),
        MappingScenario("ample", TEST, (64.0,), 138e18),
        MappingScenario("trace", ()),
    )
}
"""``compute-bound`` (nothing can be saved) and ``ample`` (everything fits, no bandwidth is idle, so
that every rule keeps what it can) are the controls: no rule can win there."""
