"""What a real population trains, for how long, and in which range each knob may move."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.real_backend.population.tasks import TASKS

DEFAULTS = {"weight_decay": 1e-5, "momentum": 0.9}
"""Knobs that are supported and not decided: each is held here (the learning rate: mid-range)."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A real population.

    Attributes:
        scenario: name.
        task: a key of `tasks.TASKS`.
        members: M.
        horizon: periods in an episode.
        interval: steps of a member in an ordinary period.
        hidden: the agent is not told the horizon.
        batch: examples in a minibatch.
        width: units of each hidden layer.
        layers: hidden layers.
        learning_rate, weight_decay, momentum: range of each knob, > 0.
        valid, test: examples a measured loss is the mean of, and the test loss.
        noise: rough standard deviation of a measured log loss, told to the agent.
        step_seconds, copy_seconds: charged for a step of the stack and for a copied member.
    """

    scenario: str
    task: str
    members: int = 8
    horizon: int = 20
    interval: int = 20
    hidden: bool = False
    batch: int = 32
    width: int = 32
    layers: int = 1
    learning_rate: tuple[float, float] = (1e-3, 1.0)
    weight_decay: tuple[float, float] = (1e-6, 1e-2)
    momentum: tuple[float, float] = (0.3, 0.98)
    valid: int = 256
    test: int = 400
    noise: float = 0.02
    step_seconds: float = 3e-4
    copy_seconds: float = 1e-4

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        if not 2 <= self.members <= 64:
            raise AllocgymError(f"members: 2 to 64 expected, given {self.members}")
        for name in ("horizon", "interval", "batch", "width", "layers", "valid", "test"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise AllocgymError(f"{name}: an integer >= 1 expected, given {value!r}")
        for name, (low, high) in self.ranges().items():
            if not 0 < low < high:
                raise AllocgymError(f"{name}: a range 0 < low < high expected, given {low, high}")
        if self.momentum[1] >= 1:
            raise AllocgymError(f"momentum: a range below 1 expected, given {self.momentum}")
        if self.noise <= 0:
            raise AllocgymError(f"noise: a number > 0 expected, given {self.noise}")

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Range of every knob this back end can turn."""
        return {k: getattr(self, k) for k in ("learning_rate", "weight_decay", "momentum")}

    def digest(self) -> str:
        """Hash every field: two settings of one digest are the same run."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


SCENARIOS: dict[str, Setting] = {
    s.scenario: s
    for s in (
        Setting("digits", "digits"),
        Setting("teacher", "teacher", test=2000),
        Setting("bytes", "bytes", width=48, valid=512, test=2000),
        # The default of the environment: nobody knows where a real network's edge lies.
        Setting("unknown-edge", "digits"),
        Setting("hidden-horizon", "digits", hidden=True),
    )
}


def make(scenario: str | Setting, **overrides: Any) -> Setting:
    """Return a named setting, with fields replaced by keyword.

    Raises:
        AllocgymError: no scenario or no field of that name, or a value out of range.
    """
    if isinstance(scenario, str) and scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    base = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
    return replaced(base, overrides, f"scenario {base.scenario!r}")
