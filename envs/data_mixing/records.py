"""What data mixing exchanges: the instance, the outcome of a period, the memory of an episode.

Shapes: ``batch`` environments, ``n`` rows for domains (those beyond an instance's own are padding).
Losses are in bits per byte.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record


@dataclasses.dataclass(eq=False)
class MixingInstance(Record):
    """What is fixed for an episode and known to everybody.

    Attributes:
        present: ``(batch, n)`` bool, rows that are domains.
        prior: ``(batch, n)`` natural shares, summing to 1 over the domains present.
        weight: ``(batch, n)`` weights of the domains in the objective, summing to 1.
        source: ``(batch, n)`` bool, domains the model already knows and should not forget.
        unique: ``(batch, n)`` units in one epoch of the domain (infinite where it never repeats).
        limit: ``(batch, n)`` int64, units the domain may supply over the episode.
        floor: ``(batch, n)`` int64, units each domain gets every period.
        graph: ``(batch, n, n)`` known skill graph: entry [i, j] says how much skill i helps skill
            j (0 everywhere where none is known).
        budget: ``(batch,)`` int64 units in a period.
        horizon: ``(batch,)`` int64 periods in the episode.
        effort: ``(batch,)`` hundreds of optimiser steps in a period.
        noise: ``(batch,)`` standard deviation of a measured loss, bits per byte.
        epsilon: ``(batch,)`` the mean loss of source domains may rise by this much (infinite:
            no constraint).
        penalty: ``(batch,)`` objective points for each bit per byte beyond ``epsilon``.
        worst: ``(batch,)`` 1 where the objective is the worst domain's loss, 0 where it is the
            weighted mean.
        hidden: ``(batch,)`` 1 where the horizon is hidden from the agent.
    """

    present: np.ndarray
    prior: np.ndarray
    weight: np.ndarray
    source: np.ndarray
    unique: np.ndarray
    limit: np.ndarray
    floor: np.ndarray
    graph: np.ndarray
    budget: np.ndarray
    horizon: np.ndarray
    effort: np.ndarray
    noise: np.ndarray
    epsilon: np.ndarray
    penalty: np.ndarray
    worst: np.ndarray
    hidden: np.ndarray


@dataclasses.dataclass(eq=False)
class MixingOutcome(Outcome):
    """What a period of training brought.

    Attributes:
        losses: ``(batch, n)`` validation losses as measured, bits per byte; what agents see.
        heldout: ``(batch, n)`` losses on separate test data (in a simulator: without noise); what
            is scored, and never shown to an agent.
        units: ``(batch, n)`` int64 units of each domain in the period just over.
        seen: ``(batch, n)`` int64 units of each domain so far.
        period: ``(batch,)`` int64 periods completed.
        lr: ``(batch,)`` mean learning rate of the coming period, as a fraction of the peak.
        lr_left: ``(batch,)`` mean learning rate over everything still to come, same unit.
        instance: what is fixed for the episode.
    """

    losses: np.ndarray
    heldout: np.ndarray
    units: np.ndarray
    seen: np.ndarray
    period: np.ndarray
    lr: np.ndarray
    lr_left: np.ndarray
    instance: MixingInstance


@dataclasses.dataclass(eq=False)
class MixingMemory(Record):
    """What the encoder needs of the past: fixed size, whatever the horizon.

    Measured losses are kept as logarithms: the observation is made of their differences.

    Attributes:
        start, last, before, earlier: ``(batch, n)`` log losses at the start, now, and one and two
            periods ago.
        lowest: ``(batch, n)`` lowest log loss so far.
        drop: ``(batch, n)`` change of the log loss over the first period.
        share: ``(batch, n)`` shares of the last period (the prior before the first).
        seen: ``(batch, n)`` units so far.
        fixed: ``(batch, n, 5)`` what the observation says of prior, weight and source, and the
            reciprocals of limit and epoch.
        objective: ``(batch,)`` held-out objective now.
        violation: ``(batch,)`` rise of the source domains beyond ``epsilon`` now.
        heldout_start: ``(batch, n)`` held-out losses at the start.
        period, lr, lr_left, instance: as in `MixingOutcome`.
    """

    start: np.ndarray
    last: np.ndarray
    before: np.ndarray
    earlier: np.ndarray
    lowest: np.ndarray
    drop: np.ndarray
    share: np.ndarray
    seen: np.ndarray
    fixed: np.ndarray
    objective: np.ndarray
    violation: np.ndarray
    heldout_start: np.ndarray
    period: np.ndarray
    lr: np.ndarray
    lr_left: np.ndarray
    instance: MixingInstance
