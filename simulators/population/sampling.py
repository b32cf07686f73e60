"""From seeds to populations: what agents know, what they do not, and where an episode begins.

Every parameter is a draw keyed by (seed, purpose, member), so an instance depends on its seed alone.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.record import Columns
from allocgym.envs.population.records import PopulationInstance
from allocgym.simulators.core.draw import Draw
from allocgym.simulators.population.families import FAMILIES, Family
from allocgym.simulators.population.scenario import PopulationScenario


@dataclasses.dataclass(eq=False)
class PopulationState(Columns):
    """All there is of a batch of running episodes.

    Attributes:
        instance: what agents know.
        law: parameters of the family's dynamics: what they do not.
        members: the family's state of every member.
        knobs: ``(k, n, batch)`` hyperparameters in use.
        donor: ``(n, batch)`` int64 whose state each member took over in the last period.
        used: ``(n, batch)`` int64 steps in the member's lineage.
        heldout, scores: ``(n, batch)`` loss now, and as it was measured last.
        alive, ready: ``(n, batch)`` bool, has not diverged; reports now.
        left: ``(batch,)`` int64 member-steps left.
        period: ``(batch,)`` int64 decisions made.
        clock: ``(n, batch)`` seconds until each member that is under way reports.
        report, cost: streams of measurement errors ``(n, batch)`` and of durations ``(3 n, batch)``.
        spent, seconds, failure: ``(batch,)`` of the last period.
    """

    instance: PopulationInstance
    law: Columns
    members: Columns
    knobs: np.ndarray
    donor: np.ndarray
    used: np.ndarray
    heldout: np.ndarray
    scores: np.ndarray
    alive: np.ndarray
    ready: np.ndarray
    left: np.ndarray
    period: np.ndarray
    clock: np.ndarray
    report: np.ndarray
    cost: np.ndarray
    spent: np.ndarray
    seconds: np.ndarray
    failure: np.ndarray


def every_knob(family: Family, names: tuple[str, ...], knobs: np.ndarray) -> np.ndarray:
    """Knobs ``(k, n, batch)`` of all a family has: those not decided at the middle of their range."""
    ranges = family.ranges()
    return np.stack(
        [
            knobs[names.index(name)]
            if name in names
            else np.full(knobs.shape[1:], np.sqrt(np.prod(ranges[name])))
            for name in family.knobs
        ]
    )


def sample(
    scenario: PopulationScenario, seeds: np.ndarray, n: int, knobs: tuple[str, ...]
) -> PopulationState:
    """Draw one instance for each seed, padded to ``n`` rows, in the state in which it begins."""
    family = FAMILIES[scenario.family]
    batch = len(seeds)
    draw = Draw(seeds, n)
    low, high = scenario.horizon
    horizon = np.floor(draw.one("horizon", low, high + 1 - 1e-9)).astype(np.int64)
    law = family.draw(draw, high)
    ranges = np.array([family.ranges()[k] for k in knobs])
    first = np.stack([draw.each(f"first-{k}") for k in knobs])
    first = ranges[:, :1, None] * (ranges[:, 1:] / ranges[:, :1])[:, :, None] ** first
    edge = family.edge(law, batch)
    ones = np.ones(batch)
    instance = PopulationInstance(
        present=np.tile(np.arange(n) < scenario.members, (batch, 1)),
        low=np.tile(ranges[:, 0], (batch, 1)),
        high=np.tile(ranges[:, 1], (batch, 1)),
        interval=np.full(batch, scenario.interval),
        horizon=horizon,
        hidden=ones * scenario.hidden,
        edge=np.where(np.isfinite(edge) & scenario.edge_told, edge, 0.0),
        monotone=np.full(batch, family.falling),
        noise=draw.one("noise", *scenario.noise),
        stream=randomness.stream(seeds, "resample")[0],
    )
    none = np.zeros((n, batch), np.int64)
    members = family.begin(law, every_knob(family, knobs, first))
    loss = family.loss(law, members)
    report = randomness.stream(seeds, "report", n)
    return PopulationState(
        instance=instance,
        law=law,
        members=members,
        knobs=first,
        donor=np.tile(np.arange(n)[:, None], batch),
        used=none,
        heldout=loss,
        scores=loss * np.exp(randomness.normal(report, none[0]) * instance.noise),
        alive=none == 0,
        ready=instance.present.T,
        left=instance.total,
        period=none[0],
        clock=np.zeros((n, batch)),
        report=report,
        cost=randomness.stream(seeds, "cost", 3 * n),
        spent=none[0],
        seconds=np.zeros(batch),
        failure=none[0],
    )
