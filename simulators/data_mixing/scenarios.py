"""Named distributions of data-mixing instances.

A scenario turns seeds into instances (what agents know) and laws (what they do not). Every
parameter is a draw keyed by (seed, purpose, domain), so an instance depends on its seed alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import total
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.data_mixing.records import MixingInstance
from allocgym.envs.data_mixing.schedules import SCHEDULES
from allocgym.simulators.data_mixing import families
from allocgym.simulators.data_mixing.law import Law

OBJECTIVES = ("mean", "worst", "target", "preference")
UNLIMITED = 10**9


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A distribution of instances. Pairs are ranges to draw from; equal ends fix the value.

    Attributes:
        name: of the scenario.
        family: where the learning law comes from: ``"regmix"`` (fitted to the public RegMix runs),
            ``"continual"`` (fitted to recorded runs of the real back end) or ``"skills"``.
        domains: how many, between 2 and 32.
        horizon: periods in an episode.
        budget: units (sequences) in a period.
        steps: optimiser steps of a whole episode at full learning rate.
        schedules: learning-rate schedules to draw from.
        forgetting: False switches every path dependence off: the control.
        objective: ``"mean"``, ``"worst"``, ``"target"`` (the last domain against the sources) or
            ``"preference"`` (random weights, shown to the agent).
        target_weight: weight of the target domain where the objective is ``"target"``.
        epsilon: allowed rise of the sources' mean loss, or None.
        penalty: objective points for each unit of loss beyond ``epsilon``.
        small: how many domains are small and repeat.
        small_share: unique data of a small domain, as a fraction of the episode's budget.
        epoch_cap: epochs a small domain may be repeated.
        noise: standard deviation of a measured loss.
        floor: share every domain gets at least, of an equal share.
        hidden: True hides the horizon from the agent.
        budget_fraction: scales the whole episode's budget: what is left after paying for a sweep.
        jitter: how far beyond the fitted parameters instances are drawn (1 is the fits' own hull).
    """

    name: str
    family: str
    domains: tuple[int, int]
    horizon: int = 10
    budget: int = 320
    steps: tuple[float, float] = (100.0, 400.0)
    schedules: tuple[str, ...] = SCHEDULES
    forgetting: bool = True
    objective: str = "mean"
    target_weight: tuple[float, float] = (0.4, 0.8)
    epsilon: tuple[float, float] | None = None
    penalty: float = 4.0
    small: tuple[int, int] = (0, 0)
    small_share: tuple[float, float] = (0.01, 0.1)
    epoch_cap: float = 16.0
    noise: tuple[float, float] = (0.002, 0.01)
    floor: float = 0.05
    hidden: bool = False
    budget_fraction: float = 1.0
    jitter: float = 1.3

    def __post_init__(self) -> None:
        if not 2 <= self.domains[0] <= self.domains[1] <= 32:
            raise AllocgymError(f"domains: a range within 2 to 32 expected, given {self.domains}")
        if self.horizon < 1 or self.budget < 32:
            raise AllocgymError(
                f"horizon >= 1 and budget >= 32 expected, given {self.horizon} and {self.budget}"
            )
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        if self.family not in families.FAMILIES:
            raise unknown("family", self.family, families.FAMILIES)
        for schedule in self.schedules:
            if schedule not in SCHEDULES:
                raise unknown("schedule", schedule, SCHEDULES)
        supply = self.domains[0] * self.small_share[0] * self.epoch_cap
        if self.small[1] >= self.domains[0] and supply < 1:
            raise AllocgymError(
                f"small, small_share, epoch_cap: where all {self.domains[0]} domains are small they "
                f"may supply {supply:.2g} of an episode's budget; at least 1 expected"
            )
        if not 0 <= self.floor <= 1:
            raise AllocgymError(f"floor: 0 to 1 expected, given {self.floor}")


SCENARIOS: dict[str, Scenario] = {
    s.name: s
    for s in (
        Scenario("scratch", "regmix", (4, 8)),
        Scenario("continual-pretraining", "continual", (2, 5), objective="target"),
        Scenario("low-resource", "regmix", (4, 8), small=(1, 3)),
        Scenario("skills", "skills", (3, 6)),
        Scenario("static-control", "regmix", (4, 8), forgetting=False, schedules=("constant",)),
    )
}


def make(name: str | Scenario, **overrides: Any) -> Scenario:
    """Return a named scenario, with fields replaced by keyword.

    Raises:
        AllocgymError: no scenario or no field of that name, or a value of another kind or out of range.
    """
    if isinstance(name, Scenario):
        base = name
    elif name in SCENARIOS:
        base = SCENARIOS[name]
    else:
        raise unknown("scenario", name, SCENARIOS)
    return replaced(base, overrides, f"scenario {base.name!r}")


class Draw:
    """Uniform draws of a batch of seeds, by purpose."""

    def __init__(self, seeds: np.ndarray, n: int) -> None:
        self.seeds, self.n = seeds, n

    def one(self, purpose: str, low: float, high: float) -> np.ndarray:
        """One number an environment, ``(batch,)``."""
        u = randomness.uniform(randomness.stream(self.seeds, purpose), 0)[0]
        return low + (high - low) * u

    def each(self, purpose: str, low: float = 0.0, high: float = 1.0, index: int = 0) -> np.ndarray:
        """One number a domain, ``(n, batch)``."""
        u = randomness.uniform(randomness.stream(self.seeds, purpose, self.n), index)
        return low + (high - low) * u

    def several(self, purpose: str, count: int) -> np.ndarray:
        """``count`` coarse numbers in (0, 1) a domain, ``(count, n, batch)`` (16 bits each)."""
        state = randomness.stream(self.seeds, purpose, self.n)
        flat = state.reshape(1, -1)
        groups = -(-count // randomness.LANES)
        out = np.empty((groups, randomness.LANES, flat.size))
        for k in range(groups):
            randomness.short_uniforms(flat, k, randomness.LANES, out[k])
        return out.reshape(-1, *state.shape)[:count]

    def whole(self, purpose: str, low: int, high: int) -> np.ndarray:
        """One integer an environment, both ends included."""
        return np.floor(self.one(purpose, low, high + 1 - 1e-9)).astype(np.int64)


@dataclasses.dataclass
class Sampled:
    """Instances and laws of a batch of seeds.

    Attributes:
        instance: what agents know.
        law: what they do not.
        schedule: ``(batch,)`` index into ``Scenario.schedules``.
        slowness: ``(n, batch)`` loading time relative to the average domain.
        noise: ``(n, batch)`` standard deviation of a measured loss.
    """

    instance: MixingInstance
    law: Law
    schedule: np.ndarray
    slowness: np.ndarray
    noise: np.ndarray


def sample(scenario: Scenario, seeds: np.ndarray, n: int) -> Sampled:
    """Draw one instance for each seed, padded to ``n`` rows.

    Raises:
        AllocgymError: the scenario may have more domains than ``n``.
    """
    if scenario.domains[1] > n:
        raise AllocgymError(
            f"n_max: the scenario has up to {scenario.domains[1]} domains, given {n}"
        )
    batch = len(seeds)
    draw = Draw(seeds, n)
    count = draw.whole("domains", *scenario.domains)
    rows = np.arange(n)[:, None]
    present = rows < count
    last = rows == count - 1
    target = scenario.objective == "target"
    source = present & ~last if target else np.zeros_like(present)

    period_budget = max(round(scenario.budget * scenario.budget_fraction), n)
    episode = float(scenario.horizon * period_budget)
    law = families.FAMILIES[scenario.family](scenario, draw, present, last)
    law.forgets = scenario.forgetting

    small = present & (rows < draw.whole("small", *scenario.small))
    law.repeats = scenario.small[1] > 0
    fraction = np.exp(draw.each("small-share", *np.log(scenario.small_share)))
    whole = scenario.horizon * scenario.budget
    unique = np.where(small, np.floor(fraction * whole) + 1, UNLIMITED)
    law.unique = unique.astype(float)
    limit = np.where(small, np.ceil(unique * scenario.epoch_cap), episode)
    limit = np.where(present, np.minimum(limit, episode), 0).astype(np.int64)

    equal = present / count
    natural = np.where(present, np.exp(draw.each("natural", -1.2, 1.2)), 0.0)
    natural = np.where(small, np.minimum(natural, fraction), natural)
    natural /= total(natural)
    if target:
        share = draw.one("target-weight", *scenario.target_weight)
        weight = np.where(last, share, source * ((1 - share) / (count - 1)))
    elif scenario.objective == "preference":
        weight = np.where(present, -np.log(draw.each("preference")), 0.0)
        weight /= total(weight)
    else:
        weight = equal
    sd = draw.one("noise", *scenario.noise)
    low, high = scenario.steps
    steps = np.exp(draw.one("steps", np.log(low), np.log(high)))
    ones = np.ones(batch)
    epsilon = np.full(batch, np.inf)
    if scenario.epsilon is not None:
        epsilon = draw.one("epsilon", *scenario.epsilon)
    instance = MixingInstance(
        present=present.T,
        prior=natural.T,
        weight=weight.T,
        source=source.T,
        unique=np.where(present, unique, 1.0).T,
        limit=np.maximum(limit, 1 - present).T,
        floor=(present * np.floor(scenario.floor * period_budget / count)).astype(np.int64).T,
        graph=np.swapaxes(law.needs, 0, 1).transpose(2, 0, 1),
        budget=np.full(batch, period_budget),
        horizon=np.full(batch, scenario.horizon),
        effort=steps * scenario.budget_fraction / scenario.horizon / 100,
        noise=sd,
        epsilon=epsilon,
        penalty=ones * scenario.penalty,
        worst=ones * (scenario.objective == "worst"),
        hidden=ones * scenario.hidden,
    )
    return Sampled(
        instance=instance,
        law=law,
        schedule=draw.whole("schedule", 0, len(scenario.schedules) - 1),
        slowness=np.exp(draw.each("slowness", -0.5, 0.5)),
        noise=sd * np.exp(draw.each("noise-spread", -0.7, 0.7)),
    )
