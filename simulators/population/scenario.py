"""Named distributions of population instances and their prices: the words. `sampling` draws from them."""

from __future__ import annotations

import dataclasses

from allocgym.envs.core.errors import unknown
from allocgym.envs.core.scenario import Checked, Scenario, within

FAMILIES = ("quadratic", "multipower")
"""Learning dynamics; see `families`."""


@dataclasses.dataclass(frozen=True)
class CostModel(Checked):
    """Nominal prices of a small cluster; they order decisions, they are not measurements.

    Attributes:
        devices: that train one member at a time each.
        step_seconds: of one optimiser step.
        copy_seconds: to take over a checkpoint.
        evaluation_seconds: of one member's report.
        jitter: standard deviation of the log of a member's slowness in a period.
        straggler_probability: that a member is slowed down in a period.
        straggler_factor: by how much.
        failure_probability: of each member in a period; its work is done again after a restart.
        restart_seconds: before that.
    """

    devices: int = within(4, 1, 1024)
    step_seconds: float = within(0.05, 1e-9, 1e6)
    copy_seconds: float = within(0.5, 0, 1e6)
    evaluation_seconds: float = within(0.3, 0, 1e6)
    jitter: float = within(0.05, 0, 2)
    straggler_probability: float = within(0.0, 0, 1)
    straggler_factor: float = within(3.0, 0, 1e6)
    failure_probability: float = within(0.0, 0, 1)
    restart_seconds: float = within(5.0, 0, 1e6)


@dataclasses.dataclass(frozen=True)
class PopulationScenario(Scenario):
    """A distribution of instances. Pairs are ranges to draw from; equal ends fix the value.

    Attributes:
        family: learning dynamics, one of `FAMILIES`.
        members: M.
        horizon: ordinary periods of an episode, both ends included.
        interval: steps of a member in an ordinary period.
        hidden: the agent is not told the horizon.
        edge_told: the agent is told the learning rate beyond which training diverges.
        noise: standard deviation of a measured log loss.
        asynchronous: members report one at a time, as each is done.
        cost: prices.
    """

    family: str = "quadratic"
    members: int = within(8, 2, 64)
    horizon: tuple[int, int] = within((20, 20), 1, 10_000)
    interval: int = within(50, 1, 10**7)
    hidden: bool = False
    edge_told: bool = False
    noise: tuple[float, float] = within((0.005, 0.02), 0, 1)
    asynchronous: bool = False
    cost: CostModel = CostModel()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.family not in FAMILIES:
            raise unknown("family", self.family, FAMILIES)


_STRAGGLING = CostModel(straggler_probability=0.15, failure_probability=0.02)
_LANGUAGE = PopulationScenario("language-model", "multipower", interval=1000, noise=(0.0005, 0.002))
SCENARIOS: dict[str, PopulationScenario] = {
    s.name: s
    for s in (
        PopulationScenario("unknown-edge"),
        PopulationScenario("known-edge", edge_told=True),
        PopulationScenario("hidden-horizon", horizon=(6, 40), hidden=True),
        PopulationScenario("stragglers", cost=_STRAGGLING, asynchronous=True),
        _LANGUAGE,
        dataclasses.replace(_LANGUAGE, name="language-model-hidden", horizon=(6, 40), hidden=True),
    )
}
CONTROL = "known-edge"
"""Nothing that matters is hidden there: a tuned schedule with the whole compute is the bar."""
