"""Named distributions of population instances."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.population.records import PopulationInstance
from allocgym.simulators.population.costs import CostModel
from allocgym.simulators.population.families import FAMILIES


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A distribution of instances.

    Attributes:
        name: of the scenario.
        family: learning dynamics, a key of `families.FAMILIES`.
        members: M.
        horizon: ordinary periods of an episode, drawn from this range (both ends included).
        interval: steps of a member in an ordinary period.
        hidden: the agent is not told the horizon.
        edge_told: the agent is told the learning rate beyond which training diverges.
        noise: standard deviation of a measured log loss, range to draw from.
        asynchronous: members report one at a time, as each is done.
        cost: prices.
    """

    name: str
    family: str = "quadratic"
    members: int = 8
    horizon: tuple[int, int] = (20, 20)
    interval: int = 50
    hidden: bool = False
    edge_told: bool = False
    noise: tuple[float, float] = (0.005, 0.02)
    asynchronous: bool = False
    cost: CostModel = CostModel()

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise unknown("family", self.family, FAMILIES)
        if not 2 <= self.members <= 64:
            raise AllocgymError(f"members: 2 to 64 expected, given {self.members}")
        if not 1 <= self.horizon[0] <= self.horizon[1]:
            raise AllocgymError(f"horizon: a range of integers >= 1 expected, given {self.horizon}")
        if self.interval < 1:
            raise AllocgymError(f"interval: an integer >= 1 expected, given {self.interval}")


STRAGGLING = CostModel(straggler_probability=0.15, failure_probability=0.02)
SCENARIOS: dict[str, Scenario] = {
    s.name: s
    for s in (
        Scenario("unknown-edge"),
        Scenario("known-edge", edge_told=True),
        Scenario("hidden-horizon", horizon=(6, 40), hidden=True),
        Scenario("stragglers", cost=STRAGGLING, asynchronous=True),
        Scenario("language-model", "multipower", interval=1000, noise=(0.0005, 0.002)),
        Scenario(
            "language-model-hidden",
            "multipower",
            interval=1000,
            noise=(0.0005, 0.002),
            horizon=(6, 40),
            hidden=True,
        ),
    )
}
CONTROL = "known-edge"
"""Nothing that matters is hidden there: a tuned schedule with the whole compute is the bar."""


def make(name: str | Scenario, **overrides: Any) -> Scenario:
    """Return a named scenario, with fields replaced by keyword.

    Raises:
        AllocgymError: no scenario or no field of that name, or a value out of range.
    """
    if isinstance(name, str) and name not in SCENARIOS:
        raise unknown("scenario", name, SCENARIOS)
    base = SCENARIOS[name] if isinstance(name, str) else name
    changes = dict(overrides)
    if isinstance(changes.get("cost"), dict):
        changes["cost"] = CostModel(**changes["cost"])
    return replaced(base, changes, f"scenario {base.name!r}")


class Draw:
    """Uniform draws of a batch of seeds, by purpose."""

    def __init__(self, seeds: np.ndarray, n: int) -> None:
        self.seeds, self.n = seeds, n

    def one(self, purpose: str, low: float, high: float) -> np.ndarray:
        """One number an environment, ``(batch,)``."""
        u = randomness.uniform(randomness.stream(self.seeds, purpose), 0)[0]
        return np.asarray(low + (high - low) * u)

    def each(self, purpose: str) -> np.ndarray:
        """One number in (0, 1) a member, ``(n, batch)``."""
        return randomness.uniform(randomness.stream(self.seeds, purpose, self.n), 0)


@dataclasses.dataclass
class Sampled:
    """Instances, the family's parameters, first knobs ``(k, n, batch)``, noise ``(batch,)``."""

    instance: PopulationInstance
    parameters: dict[str, np.ndarray]
    knobs: np.ndarray
    noise: np.ndarray


def sample(scenario: Scenario, seeds: np.ndarray, n: int, knobs: tuple[str, ...]) -> Sampled:
    """Draw one instance for each seed, padded to ``n`` rows.

    Raises:
        AllocgymError: more members than rows, or a knob that changes nothing in this family.
    """
    family = FAMILIES[scenario.family]
    if scenario.members > n:
        raise AllocgymError(f"n_max: the scenario has {scenario.members} members, given {n}")
    for knob in knobs:
        if knob not in family.knobs:
            raise AllocgymError(
                f"knobs: {knob!r} changes nothing in family {scenario.family!r}; "
                f"{', '.join(family.knobs)} do"
            )
    batch = len(seeds)
    draw = Draw(seeds, n)
    low, high = scenario.horizon
    horizon = np.floor(draw.one("horizon", low, high + 1 - 1e-9)).astype(np.int64)
    parameters = family.draw(draw, high)
    ranges = np.array([family.ranges()[k] for k in knobs])
    first = np.stack([draw.each(f"first-{k}") for k in knobs])
    first = ranges[:, :1, None] * (ranges[:, 1:] / ranges[:, :1])[:, :, None] ** first
    sd = draw.one("noise", *scenario.noise)
    edge = family.edge(parameters, batch)
    told = np.where(np.isfinite(edge) & scenario.edge_told, edge, 0.0)
    ones = np.ones(batch)
    instance = PopulationInstance(
        present=np.tile(np.arange(n) < scenario.members, (batch, 1)),
        low=np.tile(ranges[:, 0], (batch, 1)),
        high=np.tile(ranges[:, 1], (batch, 1)),
        interval=np.full(batch, scenario.interval),
        horizon=horizon,
        hidden=ones * scenario.hidden,
        edge=told,
        monotone=np.full(batch, family.falling),
        noise=sd,
        stream=randomness.stream(seeds, "resample")[0],
    )
    return Sampled(instance, parameters, first, sd)
