"""Training steps of small GPTs that are planned and run on this machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from allocgym.envs.core.errors import unknown
from allocgym.envs.core.scenario import Scenario, within
from allocgym.real_backend.core.shape import MODELS

DEVICES = ("cpu", "cuda")


@dataclasses.dataclass(frozen=True)
class PlanScenario(Scenario):
    """A model, where it runs and how it is measured.

    Attributes:
        budget: 0 (everything recomputed) to 1 (everything kept).
        profile: JSON file of an earlier calibration; without it, pilots are run first.
        device: ``"cpu"`` or ``"cuda"`` (the CUDA path has not been run).
        repeats: steps measured.
        rate: bytes a second of the slow tier on CPU.
    """

    budget: float = within(0.5, 0, 1)
    profile: str | None = None
    device: str = "cpu"
    repeats: int = within(3, 1, 1000)
    rate: float = within(2e9, 1e6, 1e13)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.device not in DEVICES:
            raise unknown("device", self.device, DEVICES)


def table() -> Mapping[str, Any]:
    """Scenarios by name: each model, and the smallest for what simulated scenarios are called."""
    found = {name: PlanScenario(name) for name in MODELS}
    return found | {name: found["gpt-narrow"] for name in ("gpt-gpu", "recorded")}
