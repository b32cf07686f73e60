"""Named training steps to plan for."""

from __future__ import annotations

import dataclasses

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within

RECORDED = ("gpt-narrow", "gpt-wide", "gpt-long")
"""Profiles fitted to real runs on a CPU."""
TRAIN = ("1024-6-1024-8", "2048-8-2048-4", "1536-12-1024-8", "4096-6-2048-2")
"""Analytic training steps of a GPT: width, blocks, tokens a sequence, sequences."""
TEST = ("1280-10-2048-8", "3072-14-2048-4", "8192-8-2048-2", "2048-16-4096-2")


@dataclasses.dataclass(frozen=True)
class ActivationScenario(Scenario):
    """Training steps that episodes are drawn from.

    Attributes:
        steps: of `RECORDED`, `TRAIN` and `TEST`.
        links: bytes a second to host memory, each way; each analytic step comes with each of them.
        overlap: transfers run beside computation (True) or stop it; each analytic step with each.
        budget: 0 (everything recomputed) to 1 (everything kept), or None: drawn per episode.
    """

    steps: tuple[str, ...] = TRAIN
    links: tuple[float, ...] = within((50e9,), 1e6, 1e15)
    overlap: tuple[bool, ...] = (True,)
    budget: float | None = within(None, 0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        known = (*RECORDED, *TRAIN, *TEST)
        for name in self.steps:
            if name not in known:
                raise unknown("steps", name, known)
        for field in ("steps", "links", "overlap"):
            if not 1 <= len(getattr(self, field)) <= 64:
                raise AllocgymError(
                    f"{field}: 1 to 64 values expected, given {len(getattr(self, field))}"
                )


SCENARIOS: dict[str, ActivationScenario] = {
    s.name: s
    for s in (
        ActivationScenario("gpt-gpu"),
        ActivationScenario("gpt-gpu-test", TEST),
        # What agents are trained on: fast and slow links, transfers beside computation and in its way.
        ActivationScenario("mixed", TRAIN, (50e9, 200e9, 1e12), (True, False)),
        ActivationScenario("recorded", RECORDED),
        *(ActivationScenario(name, (name,)) for name in RECORDED),
    )
}
