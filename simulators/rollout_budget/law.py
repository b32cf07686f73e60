"""What rollouts teach: one shared ability, a share of one's own, steps sized by signal to noise.

``logit p_i = a_i (theta_f - b_i)`` with ``theta_f = G + L_f``: item-response learning. On 900 public
trajectories (`calibration.trajectories`) the shared term explains most of what is learned.

The update. With group-normalised advantages the expected gradient of a prompt is ``w_i s_i`` times
the gradient of its logit, ``s_i = sqrt(k/n (1 - k/n))`` as sampled (0 unless mixed), and its noise
has variance ``w_i^2 / n_i`` (mean squared advantage 1) within a prompt, and ``w_i^2 s_i^2`` between
prompts: each pulls partly its own way. Adam and clipping remove the size of a gradient, so the step
is signal over the root of signal squared plus noise:

    S_f = sum_{i in f} w_i s_i,   N^2 = sum_{mixed} w_i^2 (v / n_i + k s_i^2),   D = sqrt((sum S)^2 + N^2)
    dG = eta (1 - own) sum_f S_f / D,   dL_f = eta own F (T S)_f / D

times a saturation ``1 - theta / limit``, less forgetting of families that got no rollout. Weights are
``n_i / B`` (a loss averaged over rollouts) or ``1 / M`` over prompts. Arrays are claimants first.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from allocgym.envs.core.arrays import total
from allocgym.envs.core.record import Columns


@dataclasses.dataclass(eq=False)
class Law(Columns):
    """True parameters of a batch of episodes; ``(batch,)`` unless said otherwise.

    Attributes:
        slope: ``(items, batch)`` discrimination a_i.
        difficulty: ``(items, batch)`` difficulty b_i, logits.
        family: ``(items, batch)`` int64.
        weight: ``(items, batch)`` weight of each item in held-out accuracy, summing to 1.
        families: number of families.
        eta: step, logits per update.
        own: share of the step that is the family's own.
        noise: v, within prompts.
        between: k, between prompts.
        limit: ability at which learning stops, logits.
        forget: share of a family's own ability lost in an update without it.
        need: own accuracy of the family before that opens a family half way (0: no gates).
        demonstration: gain of one demonstration relative to a full step (three-way variant).
        by_prompt: weights are 1 / M instead of n_i / B.
    """

    slope: np.ndarray
    difficulty: np.ndarray
    family: np.ndarray
    weight: np.ndarray
    families: int
    eta: np.ndarray
    own: np.ndarray
    noise: np.ndarray
    between: np.ndarray
    limit: np.ndarray
    forget: np.ndarray
    need: np.ndarray
    demonstration: np.ndarray
    by_prompt: bool

    @functools.cached_property
    def masks(self) -> tuple[np.ndarray, np.ndarray]:
        """``(families, items, batch)`` membership, and each family's weight (1 where none)."""
        mask = np.stack([self.family == f for f in range(self.families)])
        mask = mask.astype(self.weight.dtype)
        share = np.stack([total(self.weight * m) for m in mask])
        return mask, share + (share == 0)


GATE = 0.08
"""Width of a prerequisite's gate, in accuracy."""


def success(law: Law, theta: np.ndarray, ids: np.ndarray | None = None) -> np.ndarray:
    """Success rates ``(n, batch)`` of items (all, or those at ``(n, batch)`` ids).

    Args:
        law: parameters.
        theta: ``(families, batch)`` abilities.
        ids: items wanted.
    """
    slope, difficulty, family = law.slope, law.difficulty, law.family
    if ids is not None:
        slope = np.take_along_axis(slope, ids, 0)
        difficulty = np.take_along_axis(difficulty, ids, 0)
        family = np.take_along_axis(family, ids, 0)
    if law.families == 1:
        ability = theta[0][None]
    elif ids is None and law.families <= 3:
        # Few families: masks are cheaper than a gather.
        mask, _ = law.masks
        ability = theta[0] * mask[0]
        for f in range(1, law.families):
            ability += theta[f] * mask[f]
    else:
        ability = np.take_along_axis(theta, family, 0)
    x = slope * (ability - difficulty)
    np.negative(x, out=x)
    np.exp(x, out=x)
    x += 1
    return np.reciprocal(x, out=x)


def accuracy(law: Law, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Held-out accuracy ``(batch,)`` and by family ``(families, batch)`` from all items' rates."""
    parts = law.weight * p
    if law.families == 1:
        whole = total(parts)
        return whole, whole[None]
    mask, share = law.masks
    rows = np.stack([total(parts * mask[f]) for f in range(law.families)])
    return total(parts), rows / share


def advance(
    law: Law,
    shared: np.ndarray,
    own: np.ndarray,
    by_family: np.ndarray,
    family: np.ndarray,
    tried: np.ndarray,
    right: np.ndarray,
    mixed_share: np.ndarray,
    prompts: np.ndarray,
    three_way: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """One policy update.

    Args:
        law: parameters.
        shared: ``(batch,)`` G.
        own: ``(families, batch)`` L.
        by_family: ``(families, batch)`` accuracy now (for gates).
        family: ``(n, batch)`` families of the rows.
        tried: ``(n, batch)`` rollouts.
        right: ``(n, batch)`` successes, as the verifier saw them.
        mixed_share: ``(n, batch)`` share of the row's groups that are mixed.
        prompts: ``(n, batch)`` prompts in the row.
        three_way: a row with one unit a prompt is a demonstration, not a rollout.

    Returns:
        New G and L.
    """
    size = np.maximum(tried, 1)
    rate = right / size
    spread = np.sqrt(rate * (1 - rate)) * mixed_share
    whole = np.maximum(total(tried), 1)
    many = np.maximum(prompts, 1)
    if law.by_prompt:
        asked: np.ndarray = (tried > 0) * prompts
        weight = asked / np.maximum(total(asked), 1)
    else:
        weight = tried / whole
    signal = weight * spread
    # A row of m prompts: each has weight w / m, n / m rollouts, and is mixed in its share.
    square = weight * weight * mixed_share
    noise = law.noise * total(square / size)
    noise = noise + law.between * total(square * rate * (1 - rate) / many)
    count = law.families
    parts = (
        total(signal)[None]
        if count == 1
        else np.stack([total(signal * (family == f)) for f in range(count)])
    )
    if three_way:
        # Demonstrations teach their family at a fixed rate, whatever the success rate.
        lesson = weight * (tried == prompts) * law.demonstration
        parts = parts + (
            total(lesson)[None]
            if count == 1
            else np.stack([total(lesson * (family == f)) for f in range(count)])
        )
    summed = total(parts)
    size_of_step = np.sqrt(summed * summed + noise)
    size_of_step = size_of_step + (size_of_step == 0)
    scale = law.eta / size_of_step
    gate: np.ndarray | float = 1.0
    if (law.need > 0).any():
        before = by_family[:-1]
        x = 1 / (1 + np.exp(-(before - law.need) / GATE))
        gate = np.concatenate([np.ones_like(by_family[:1]), np.where(law.need > 0, x, 1.0)])
    room = np.maximum(1 - (shared + own) / law.limit, 0)
    new_shared = shared + scale * (1 - law.own) * summed * np.maximum(1 - shared / law.limit, 0)
    step = scale * law.own * count * parts
    new_own = own + step * gate * room
    if (law.forget > 0).any():
        if count == 1:
            seen = total(tried)[None] > 0
        else:
            seen = np.stack([total(tried * (family == f)) > 0 for f in range(count)])
        new_own = np.where(seen, new_own, new_own * (1 - law.forget))
    return new_shared, new_own
