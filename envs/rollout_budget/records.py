"""What rollout budgets exchange: the instance, the outcome of a period, the memory of an episode.

Shapes: ``batch`` environments, ``n`` rows offered in a period, ``items`` claimants in the pool
(dataset indices), ``families`` of tasks. A row is a prompt, or a bin of ``prompts`` alike ones.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record


@dataclasses.dataclass(eq=False)
class RolloutInstance(Record):
    """What is fixed for an episode and known to everybody.

    Attributes:
        family: ``(batch, items)`` int64 family of each item.
        families: ``(batch,)`` int64 number of families.
        category: ``(batch, items)`` int64 below `CATEGORIES`: items of one category are alike
            enough to share a running prior (a family at a level, or the family).
        pooled: ``(batch,)`` 1 where beliefs start from the category's running mean.
        prior_a: ``(batch, items)`` pseudo-successes of the belief before any rollout.
        prior_b: ``(batch, items)`` pseudo-failures.
        retention: ``(batch,)`` share of a belief's evidence kept from one visit to the next.
        budget: ``(batch,)`` int64 rollouts in a period (one round of one policy update).
        low: ``(batch,)`` int64 least rollouts of an offered prompt in a period.
        high: ``(batch,)`` int64 most rollouts of an offered prompt in a period.
        multiple: ``(batch,)`` int64, every count is a multiple of this.
        horizon: ``(batch,)`` int64 policy updates in the episode.
        rounds: ``(batch,)`` int64 periods in a policy update.
        group: ``(batch,)`` rollouts of a prompt when all get the same, over a whole update.
        price: ``(batch,)`` accuracy that a mean update's worth of tokens costs.
        nominal: ``(batch,)`` tokens of a mean update, the unit of ``price``.
    """

    family: np.ndarray
    families: np.ndarray
    category: np.ndarray
    pooled: np.ndarray
    prior_a: np.ndarray
    prior_b: np.ndarray
    retention: np.ndarray
    budget: np.ndarray
    low: np.ndarray
    high: np.ndarray
    multiple: np.ndarray
    horizon: np.ndarray
    rounds: np.ndarray
    group: np.ndarray
    price: np.ndarray
    nominal: np.ndarray


@dataclasses.dataclass(eq=False)
class RolloutOutcome(Outcome):
    """What a round of rollouts brought, and what is offered next.

    ``tried``, ``right``, ``mixed`` and ``tokens`` are sums over the rounds of one update. After
    its last round they belong to ``last_ids`` and the model has been updated; the rows of ``ids``
    are then new and untouched.

    Attributes:
        ids: ``(batch, n)`` int64 items offered for the coming round.
        prompts: ``(batch, n)`` prompts in each row (counts are whole numbers in floats).
        last_ids: ``(batch, n)`` int64 items the counts below belong to.
        tried: ``(batch, n)`` rollouts.
        right: ``(batch, n)`` rollouts that the verifier accepted.
        mixed: ``(batch, n)`` prompts whose group is mixed (bins of a simulator: their expected number).
        effective: ``(batch, n)`` rollouts in mixed groups.
        tokens: ``(batch, n)`` generated tokens.
        step: ``(batch,)`` int64 updates done.
        round: ``(batch,)`` int64 rounds done of the coming update (0: fresh rows).
        accuracy: ``(batch,)`` held-out accuracy as measured; what agents see.
        heldout: ``(batch,)`` held-out accuracy that is scored (in a simulator without noise).
        family_accuracy: ``(batch, 8)`` measured held-out accuracy by family (0: no such family).
        prompt_ratio: ``(batch,)`` mixed groups over groups in the last update.
        rollout_ratio: ``(batch,)`` rollouts in mixed groups over rollouts in the last update.
        all_tokens: ``(batch,)`` tokens since the start.
        all_rollouts: ``(batch,)`` rollouts since the start.
        all_seconds: ``(batch,)`` seconds since the start.
        instance: what is fixed for the episode.
    """

    ids: np.ndarray
    prompts: np.ndarray
    last_ids: np.ndarray
    tried: np.ndarray
    right: np.ndarray
    mixed: np.ndarray
    effective: np.ndarray
    tokens: np.ndarray
    step: np.ndarray
    round: np.ndarray
    accuracy: np.ndarray
    heldout: np.ndarray
    family_accuracy: np.ndarray
    prompt_ratio: np.ndarray
    rollout_ratio: np.ndarray
    all_tokens: np.ndarray
    all_rollouts: np.ndarray
    all_seconds: np.ndarray
    instance: RolloutInstance


FAMILIES = 8
"""Columns of ``family_accuracy``: the most families an instance may have."""
CATEGORIES = 32
"""The most categories that may share a prior."""


@dataclasses.dataclass(eq=False)
class Beliefs(Record):
    """What is known of each item: fixed size, whatever the horizon.

    Attributes:
        a: ``(batch, items)`` discounted pseudo-successes, prior included.
        b: ``(batch, items)`` discounted pseudo-failures, prior included.
        recent_n: ``(batch, items)`` rollouts in the published window (last visit, padded to 16
            with the visits before it).
        recent_k: ``(batch, items)`` successes among them.
        streak: ``(batch, items)`` visits without a mixed group since the last mixed one.
        mean: ``(batch, items)`` success rate of the last visit.
        mixed: ``(batch, items)`` moving average of the share of mixed groups (0.5 before any).
        length: ``(batch, items)`` mean tokens of a rollout (0 before any).
        visits: ``(batch, items)`` updates the item took part in.
        seen: ``(batch, items)`` step of the last visit (0 before any).
    """

    a: np.ndarray
    b: np.ndarray
    recent_n: np.ndarray
    recent_k: np.ndarray
    streak: np.ndarray
    mean: np.ndarray
    mixed: np.ndarray
    length: np.ndarray
    visits: np.ndarray
    seen: np.ndarray


@dataclasses.dataclass(eq=False)
class RolloutMemory(Record):
    """What the encoder and the rules need of the past.

    Attributes:
        beliefs: what is known of each item.
        ids, prompts: the rows offered now, as in `RolloutOutcome`.
        tried, right: ``(batch, n)`` what these rows got in the rounds of this update so far.
        step, round, accuracy, heldout, family_accuracy, prompt_ratio, rollout_ratio: as in
            `RolloutOutcome`.
        pool_a, pool_b: ``(batch, 32)`` discounted successes and failures by category.
        slope: ``(batch,)`` moving average of the change of measured accuracy in an update.
        spent: ``(batch,)`` int64 rollouts so far.
        tokens: ``(batch,)`` tokens so far.
        seconds: ``(batch,)`` seconds so far.
        paid: ``(batch, 3)`` rollouts, tokens and seconds when the last update was complete.
        areas: ``(batch, 3)`` held-out accuracy summed over each of them (trapezoids), so far.
        ratios: ``(batch, 2)`` gradient ratios per prompt and per rollout, summed over updates.
        objective: ``(batch,)`` held-out error now (1 - accuracy): lower is better.
        instance: what is fixed for the episode.
    """

    ids: np.ndarray
    prompts: np.ndarray
    tried: np.ndarray
    right: np.ndarray
    step: np.ndarray
    round: np.ndarray
    accuracy: np.ndarray
    heldout: np.ndarray
    family_accuracy: np.ndarray
    prompt_ratio: np.ndarray
    rollout_ratio: np.ndarray
    pool_a: np.ndarray
    pool_b: np.ndarray
    slope: np.ndarray
    spent: np.ndarray
    tokens: np.ndarray
    seconds: np.ndarray
    paid: np.ndarray
    areas: np.ndarray
    ratios: np.ndarray
    objective: np.ndarray
    beliefs: Beliefs
    instance: RolloutInstance
