"""The records of populations: instance, plan, outcome, memory. Leading axis: batch."""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.contracts import Decision, Outcome
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record


@dataclasses.dataclass(eq=False)
class PopulationInstance(Record):
    """What is known of an episode before it starts.

    Attributes:
        present: ``(batch, n)`` bool, members; the rest is padding.
        low, high: ``(batch, k)`` range of each knob, in its own unit, > 0.
        interval: ``(batch,)`` int64 steps of a member in an ordinary period.
        horizon: ``(batch,)`` int64 ordinary periods in the episode.
        hidden: ``(batch,)`` float64 1 where the agent is not told the horizon.
        edge: ``(batch,)`` float64 learning rate beyond which training diverges where it is told, else 0.
        monotone: ``(batch,)`` bool, the learning rate of a lineage may only fall (the range a law was
            fitted in); an action that would raise it leaves it as it is.
        noise: ``(batch,)`` float64 rough standard deviation of a measured log loss.
        stream: ``(batch,)`` uint64 key of the values drawn when a knob is resampled.
    """

    present: np.ndarray
    low: np.ndarray
    high: np.ndarray
    interval: np.ndarray
    horizon: np.ndarray
    hidden: np.ndarray
    edge: np.ndarray
    monotone: np.ndarray
    noise: np.ndarray
    stream: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """``(batch,)`` int64 member-steps of the whole episode."""
        return np.asarray(self.present.sum(1) * self.interval * self.horizon)


@dataclasses.dataclass(eq=False)
class Plan(Decision):
    """What every member does in the coming period. All copies happen at once, before any training.

    Attributes:
        donor: ``(batch, n)`` int64, the member whose state is taken over; its own index keeps.
        knobs: ``(batch, n, k)`` float64, hyperparameters to train with, in their own units.
        steps: ``(batch, n)`` int64 optimiser steps; a row sums to what the period grants.
    """

    donor: np.ndarray
    knobs: np.ndarray
    steps: np.ndarray

    def check_form(self, instance: PopulationInstance) -> None:
        """Raise `AllocgymError` where nobody could carry it out, whatever the problem allows."""
        batch, n = instance.present.shape
        shapes = ((batch, n), (batch, n, instance.low.shape[1]), (batch, n))
        found = (self.donor.shape, self.knobs.shape, self.steps.shape)
        if found != shapes:
            raise AllocgymError(
                f"plan: donor, knobs, steps of shapes {shapes} expected, given {found}"
            )
        if (self.donor < 0).any() or (self.donor >= n).any():
            raise AllocgymError(f"donor: 0 to {n - 1} expected, given {self.donor.tolist()}")
        taken = np.take_along_axis(instance.present, self.donor, 1)
        if (~taken & instance.present).any():
            raise AllocgymError(f"donor: members present expected, given {self.donor.tolist()}")
        if (self.steps < 0).any() or (self.steps * ~instance.present).any():
            raise AllocgymError(
                f"steps: whole numbers >= 0, of members present, expected, "
                f"given {self.steps.tolist()}"
            )
        if not np.isfinite(self.knobs).all():
            raise AllocgymError(f"knobs: finite numbers expected, given {self.knobs.tolist()}")

    @property
    def fractions(self) -> np.ndarray:
        """``(batch, n)`` shares of the period's steps."""
        return np.asarray(self.steps / np.maximum(self.steps.sum(1, keepdims=True), 1))


@dataclasses.dataclass(eq=False)
class PopulationOutcome(Outcome):
    """What is known after a period (``ready``: the members that report now).

    Attributes:
        scores: ``(batch, n)`` float64 measured validation loss, > 0; the last one of members that do
            not report.
        heldout: ``(batch, n)`` float64 test loss; agents are not shown it.
        alive: ``(batch, n)`` bool, the member has not diverged.
        knobs: ``(batch, n, k)`` float64 hyperparameters in force.
        donor: ``(batch, n)`` int64, whom the member copied at the start of the period (itself: nobody).
        used: ``(batch, n)`` int64 steps in the member's lineage.
        grant: ``(batch,)`` int64 member-steps the next decision divides.
        left: ``(batch,)`` int64 member-steps left in the episode.
        period: ``(batch,)`` int64 decisions made.
        instance: what is known before the episode.
    """

    scores: np.ndarray
    heldout: np.ndarray
    alive: np.ndarray
    knobs: np.ndarray
    donor: np.ndarray
    used: np.ndarray
    grant: np.ndarray
    left: np.ndarray
    period: np.ndarray
    instance: PopulationInstance


@dataclasses.dataclass(eq=False)
class PopulationMemory(Record):
    """What is remembered of an episode: a fixed number of numbers a member.

    Attributes:
        last, before, earlier: ``(batch, n)`` float64 log of the last three measured losses of the
            lineage (of the donor, where it was copied in between).
        best: ``(batch, n)`` float64 lowest log loss of the lineage.
        start: ``(batch,)`` float64 lowest log loss before training.
        age: ``(batch, n)`` float64 decisions since the member copied somebody.
        objective: ``(batch,)`` float64 test loss of the member with the best measured loss.
        outcome: the latest outcome.
    """

    last: np.ndarray
    before: np.ndarray
    earlier: np.ndarray
    best: np.ndarray
    start: np.ndarray
    age: np.ndarray
    objective: np.ndarray
    outcome: PopulationOutcome
