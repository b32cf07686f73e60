"""A training step as groups of activations: sizes and seconds, and what a plan makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record
from allocgym.envs.core.untrusted import numbers

KEEP, RECOMPUTE, OFFLOAD = 0, 1, 2
ACTIONS = ("keep", "recompute", "offload")
GROUPED = ("size", "left_recompute", "left_offload", "work", "forward", "backward", "recompute")
FIELDS = (*GROUPED, "base", "head", "rate", "overlap")
LARGEST = 1e18
"""No bytes or seconds may be more."""


@dataclasses.dataclass(eq=False)
class Profile(Record):
    """A training step as groups in forward order (operator class x block), one row per environment.

    Attributes:
        size: ``(batch, n)`` bytes a group's activations take until its backward pass.
        left_recompute: ``(batch, n)`` bytes that stay when it is recomputed (its inputs).
        left_offload: ``(batch, n)`` bytes that stay when it is offloaded (what is too small to move).
        work: ``(batch, n, 3)`` bytes while its backward pass runs, its own activations included, by
            what was done with it.
        forward, backward, recompute: ``(batch, n)`` seconds.
        base: ``(batch,)`` bytes always there (parameters, gradients, optimiser, inputs).
        head: ``(batch,)`` bytes of the loss, alive between forward and backward.
        rate: ``(batch,)`` bytes a second to and from the slow tier, each way.
        overlap: ``(batch,)`` bool, transfers run beside computation (CUDA side stream), or stop it.
        budget: ``(batch,)`` largest peak allowed, bytes.
        present: ``(batch, n)`` bool, not padding.
    """

    size: np.ndarray
    left_recompute: np.ndarray
    left_offload: np.ndarray
    work: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    recompute: np.ndarray
    base: np.ndarray
    head: np.ndarray
    rate: np.ndarray
    overlap: np.ndarray
    budget: np.ndarray
    present: np.ndarray


def timeline(profile: Profile, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Play a training step: two FIFO copy engines beside one compute stream.

    Forward: an offloaded group leaves once it is produced and the engine is free, and is counted
    until then. Backward: the group before the one being computed is fetched meanwhile, not earlier;
    recomputation runs just before the group's backward pass. Without overlap, transfers stop the
    compute stream.

    Args:
        profile: of the step.
        action: ``(batch, n)`` keep, recompute or offload.

    Returns:
        ``(batch,)`` seconds and ``(batch,)`` peak bytes.
    """
    batch, n = action.shape
    p = profile
    off = (action == OFFLOAD) & p.present
    redo = (action == RECOMPUTE) & p.present
    left = np.where(off, p.left_offload, np.where(redo, p.left_recompute, p.size))
    left = np.where(p.present, left, 0)
    moved = np.where(off, p.size - p.left_offload, 0)
    trip = moved / p.rate[:, None]
    now = np.zeros(batch)
    out_free = np.zeros(batch)
    out_end = np.zeros((batch, n))
    held = p.base.astype(float).copy()
    peak = held.copy()
    for i in range(n):
        now = now + p.forward[:, i]
        # What is on its way out is still there when this group has just been computed.
        late = (moved[:, :i] * (out_end[:, :i] > now[:, None])).sum(1)
        np.maximum(peak, held + late + p.size[:, i] * p.present[:, i], out=peak)
        held = held + left[:, i]
        out_free = np.where(off[:, i], np.maximum(out_free, now) + trip[:, i], out_free)
        out_end[:, i] = np.where(off[:, i], out_free, 0.0)
        now = np.where(p.overlap, now, np.maximum(now, out_end[:, i]))
    late = (moved * (out_end > now[:, None])).sum(1)
    np.maximum(peak, held + late + p.head, out=peak)
    in_free = np.zeros(batch)
    ready = np.zeros((batch, n))

    def fetch(i: int, when: np.ndarray) -> None:
        nonlocal in_free
        begin = np.maximum(np.maximum(in_free, when), out_end[:, i])
        in_free = np.where(off[:, i], begin + trip[:, i], in_free)
        ready[:, i] = np.where(off[:, i], in_free, 0.0)

    fetch(n - 1, now)
    for i in range(n - 1, -1, -1):
        now = np.maximum(now, ready[:, i])
        ahead = np.zeros(batch)
        if i and p.overlap.any():
            early = now
            ready_before, free_before = ready[:, i - 1].copy(), in_free
            fetch(i - 1, early)
            ready[:, i - 1] = np.where(p.overlap, ready[:, i - 1], ready_before)
            in_free = np.where(p.overlap, in_free, free_before)
            ahead = np.where(p.overlap, moved[:, i - 1], 0)
        held = held - left[:, i]
        late = (moved[:, :i] * (out_end[:, :i] > now[:, None])).sum(1)
        mine = np.take_along_axis(p.work[:, i], action[:, i, None], 1)[:, 0] * p.present[:, i]
        np.maximum(peak, held + late + ahead + mine, out=peak)
        now = now + np.where(redo[:, i], p.recompute[:, i], 0) + p.backward[:, i]
        if i and not p.overlap.all():
            ready_before, free_before = ready[:, i - 1].copy(), in_free
            fetch(i - 1, now)
            ready[:, i - 1] = np.where(p.overlap, ready_before, ready[:, i - 1])
            in_free = np.where(p.overlap, free_before, in_free)
    return now, peak


def legal_actions(profile: Profile, action: np.ndarray, step: np.ndarray) -> np.ndarray:
    """``(batch, 3)`` bool: an action is legal where recomputing all that follows keeps the peak.

    Recomputing everything has to fit the budget (a back end that resets to less is at fault), so one
    action is always legal.
    """
    batch, n = action.shape
    rows = np.arange(batch)
    at = np.minimum(step, n - 1)
    later = np.arange(n)[None] > at[:, None]
    legal = np.zeros((batch, 3), bool)
    for pick in (KEEP, RECOMPUTE, OFFLOAD):
        trial = np.where(later, RECOMPUTE, action)
        trial[rows, at] = pick
        legal[:, pick] = timeline(profile, trial)[1] <= profile.budget
    legal[~legal.any(1), RECOMPUTE] = True
    return legal


def profile_from_json(data: Mapping[str, Any], n_max: int, budget: float = 0.5) -> Profile:
    """Build a profile of one row.

    Args:
        data: ``size``, ``left_recompute``, ``left_offload``, ``work``, ``forward``, ``backward``,
            ``recompute`` by group; ``base``, ``head``, ``rate``, ``overlap``.
        n_max: rows.
        budget: 0 (everything recomputed) to 1 (everything kept).

    Raises:
        AllocgymError: a figure is missing, of another shape, not finite or negative.
    """
    missing = [k for k in FIELDS if k not in data] if isinstance(data, Mapping) else list(FIELDS)
    if missing or not isinstance(data["size"], (list, tuple, np.ndarray)):
        raise AllocgymError(
            f"profile: groups with {', '.join(FIELDS)} expected, {', '.join(missing)} missing"
        )
    n = len(data["size"])
    if not n:
        raise AllocgymError("profile: at least one group expected")
    if n > n_max:
        raise AllocgymError(f"n_max: {n} groups, {n_max} rows; raise n_max")

    def wide(name: str, *also: int) -> np.ndarray:
        out = np.zeros((1, n_max, *also))
        out[0, :n] = numbers(f"profile: {name}", data[name], (n, *also), 0, LARGEST)
        return out

    def one(name: str, low: float = 0) -> np.ndarray:
        return numbers(f"profile: {name}", data[name], (), low, LARGEST)[None]

    present = np.zeros((1, n_max), bool)
    present[0, :n] = True
    made = Profile(
        wide("size"),
        wide("left_recompute"),
        wide("left_offload"),
        wide("work", 3),
        wide("forward"),
        wide("backward"),
        wide("recompute"),
        one("base"),
        one("head"),
        one("rate", 1e-3),
        np.array([bool(data["overlap"])]),
        np.array([np.inf]),
        present,
    )
    low, high = span(made)
    made.budget = low + budget * (high - low)
    return made


def span(profile: Profile) -> tuple[np.ndarray, np.ndarray]:
    """``(batch,)`` peaks with everything recomputed and with everything kept."""
    keep = np.zeros(profile.size.shape, np.int64)
    return timeline(profile, keep + RECOMPUTE)[1], timeline(profile, keep)[1]
