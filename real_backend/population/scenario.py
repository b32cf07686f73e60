"""What a real population trains, for how long, and in which range each knob may move; and named ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within
from allocgym.real_backend.population.tasks import TASKS

DEFAULTS = {"weight_decay": 1e-5, "momentum": 0.9}
"""Knobs that are supported and not decided: each is held here (the learning rate: mid-range)."""
RENAMED = {"scenario": "name"}
"""Fields by the names they had in older run folders."""
MOST = 2**30
"""Numbers in the weights of all members together, or drawn for a period of theirs."""


@dataclasses.dataclass(frozen=True)
class RealPopulationScenario(Scenario):
    """A real population. What a simulated scenario has too goes by the same name.

    Attributes:
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

    task: str = "digits"
    members: int = within(8, 2, 64)
    horizon: int = within(20, 1, 100_000)
    interval: int = within(20, 1, 10**6)
    hidden: bool = False
    batch: int = within(32, 1, 2**16)
    width: int = within(32, 1, 2**14)
    layers: int = within(1, 1, 64)
    learning_rate: tuple[float, float] = within((1e-3, 1.0), 1e-12, 1e30)
    weight_decay: tuple[float, float] = within((1e-6, 1e-2), 1e-12, 1e6)
    momentum: tuple[float, float] = within((0.3, 0.98), 1e-12, 1)
    valid: int = within(256, 1, 10**6)
    test: int = within(400, 1, 10**6)
    noise: float = within(0.02, 1e-9, 10)
    step_seconds: float = within(3e-4, 0, 1e6)
    copy_seconds: float = within(1e-4, 0, 1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS:
            raise unknown("task", self.task, TASKS)
        for name, (low, high) in self.ranges().items():
            if low >= high:
                raise AllocgymError(f"{name}: a range 0 < low < high expected, given {low, high}")
        if self.momentum[1] >= 1:
            raise AllocgymError(f"momentum: a range below 1 expected, given {self.momentum}")
        for names, numbers in (
            ("width, layers", self.members * self.width * (128 + self.layers * self.width)),
            ("interval, batch", self.members * self.interval * self.batch),
        ):
            if numbers > MOST:
                raise AllocgymError(
                    f"members, {names}: more than {MOST:g} numbers to be held at once"
                )

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Checked.altered`: names that fields had in older run folders are understood."""
        return {RENAMED.get(k, k): v for k, v in changes.items()}

    def ranges(self) -> dict[str, tuple[float, float]]:
        """Range of every knob this back end can turn."""
        return {k: getattr(self, k) for k in ("learning_rate", "weight_decay", "momentum")}

    def digest(self) -> str:
        """Hash every field: two scenarios of one digest are the same run."""
        fields = dataclasses.asdict(self)
        for old, new in RENAMED.items():
            fields[old] = fields.pop(new)
        text = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


SCENARIOS: dict[str, RealPopulationScenario] = {
    s.name: s
    for s in (
        RealPopulationScenario("digits", "digits"),
        RealPopulationScenario("teacher", "teacher", test=2000),
        RealPopulationScenario("bytes", "bytes", width=48, valid=512, test=2000),
        # The default of the environment: nobody knows where a real network's edge lies.
        RealPopulationScenario("unknown-edge", "digits"),
        RealPopulationScenario("hidden-horizon", "digits", hidden=True),
    )
}
