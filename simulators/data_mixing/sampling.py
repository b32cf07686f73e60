"""From seeds to episodes of data mixing: what agents know, what they do not, and where it begins.

Every parameter is a draw keyed by (seed, purpose, domain), so an instance depends on its seed alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import total
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Columns
from allocgym.envs.data_mixing.records import MixingInstance
from allocgym.simulators.core.draw import Draw
from allocgym.simulators.data_mixing import families
from allocgym.simulators.data_mixing.costs import CostModel
from allocgym.simulators.data_mixing.law import Law, State, begin, losses
from allocgym.simulators.data_mixing.scenario import MixingScenario

UNLIMITED = 10**9


@dataclasses.dataclass(eq=False)
class MixingState(Columns):
    """All there is of a batch of running episodes.

    Attributes:
        instance: what agents know.
        law: what they do not.
        schedule: ``(batch,)`` index into ``MixingScenario.schedules``.
        slowness: ``(n, batch)`` loading time relative to the average domain.
        noise: ``(n, batch)`` standard deviation of a measured loss.
        evaluation, duration, chance: streams of measurement errors, of durations, of failures.
        learning: state of the law.
        heldout: ``(n, batch)`` losses without noise.
        lr: ``(batch,)`` learning rate at which they were taken, as a fraction of the peak.
        units, seen: ``(n, batch)`` int64 units of each domain in the last period, and so far.
        period: ``(batch,)`` int64 periods completed.
        seconds: ``(batch,)`` of the last period.
        failure: ``(batch,)`` int64 failures of the last period.
    """

    instance: MixingInstance
    law: Law
    schedule: np.ndarray
    slowness: np.ndarray
    noise: np.ndarray
    evaluation: np.ndarray
    duration: np.ndarray
    chance: np.ndarray
    learning: State
    heldout: np.ndarray
    lr: np.ndarray
    units: np.ndarray
    seen: np.ndarray
    period: np.ndarray
    seconds: np.ndarray
    failure: np.ndarray


def sample(scenario: MixingScenario, seeds: np.ndarray, n: int, cost: CostModel) -> MixingState:
    """Draw one instance for each seed, padded to ``n`` rows, in the state in which it begins.

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
    law.forgets = law.forgets and scenario.forgetting

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
    if scenario.family == "table":
        natural, weight = families.table_facts(scenario, present)
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
    learning = begin(law)
    none = np.zeros((n, batch), np.int64)
    return MixingState(
        instance=instance,
        law=law,
        schedule=draw.whole("schedule", 0, len(scenario.schedules) - 1),
        slowness=np.exp(draw.each("slowness", -0.5, 0.5)),
        noise=sd * np.exp(draw.each("noise-spread", -0.7, 0.7)),
        evaluation=randomness.lane_stream(seeds, "evaluation", n),
        duration=randomness.lane_stream(seeds, "duration", 2 * cost.chunks),
        chance=randomness.stream(seeds, "failure"),
        learning=learning,
        heldout=losses(law, learning, law.rate_start),
        lr=law.rate_start,
        units=none,
        seen=none,
        period=none[0],
        seconds=np.zeros(batch),
        failure=none[0],
    )
