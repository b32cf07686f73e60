"""Activation plans: keep, recompute or offload each group under a physical peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core.contracts import Decision, Outcome, Problem
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.record import Record, nested

KEEP, RECOMPUTE, OFFLOAD = 0, 1, 2
ACTIONS = ("keep", "recompute", "offload")
FEATURES = (
    "size",
    "left by recompute",
    "left by offload",
    "recompute time",
    "transfer time",
    "work",
    "decided",
    "position",
)


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


@dataclasses.dataclass(eq=False)
class GroupChoice(Decision):
    """Keep (0), recompute (1), offload (2); -1 where the episode is over; ``pick`` is ``(batch,)``."""

    pick: np.ndarray


@dataclasses.dataclass(eq=False)
class ActivationOutcome(Outcome):
    """What is known after a choice.

    Attributes:
        profile: the training step.
        action: ``(batch, n)`` decided so far; groups not decided are kept.
        step: ``(batch,)`` groups decided.
        time: ``(batch,)`` seconds of a training step under the plan so far.
        peak: ``(batch,)`` bytes.
        keep_time: ``(batch,)`` seconds with everything kept.
    """

    profile: Profile = nested(Profile)
    action: np.ndarray
    step: np.ndarray
    time: np.ndarray
    peak: np.ndarray
    keep_time: np.ndarray

    @property
    def added(self) -> np.ndarray:
        """``(batch,)`` percent of time added to the step that keeps everything."""
        percent: np.ndarray = 100 * (self.time / self.keep_time - 1)
        return percent

    @property
    def fullness(self) -> np.ndarray:
        """``(batch,)`` peak over the budget; groups that are not decided are kept."""
        share: np.ndarray = self.peak / self.profile.budget
        return share


@dataclasses.dataclass(eq=False)
class ActivationMemory(Record):
    """What an agent remembers; ``objective`` is minus the added time over the keep-all time."""

    profile: Profile = nested(Profile)
    action: np.ndarray
    step: np.ndarray
    peak: np.ndarray
    objective: np.ndarray
    legal: np.ndarray
    done: np.ndarray


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


class ActivationPlan(Problem[ActivationOutcome, ActivationMemory, GroupChoice]):
    """See `ActivationPlanEnv`.

    Args:
        n_max: rows, groups of a training step.
        illegal: ``"refuse"`` or ``"recompute"`` (what an illegal action becomes).
    """

    id: ClassVar[str] = "activation-plan"
    outcome_type = ActivationOutcome
    decision_type = GroupChoice
    features = FEATURES
    traces: ClassVar[Mapping[str, str]] = {
        "added": "time added so far (%)",
        "fullness": "peak over the budget (1 or less at the end)",
    }

    def __init__(self, n_max: int = 32, illegal: str = "refuse") -> None:
        if illegal not in ("refuse", "recompute"):
            raise unknown("illegal", illegal, ("refuse", "recompute"))
        if not 1 <= n_max <= 512:
            raise AllocgymError(f"n_max: 1 to 512 expected, given {n_max}")
        self.n_max, self.illegal = n_max, illegal
        self.action_space = spaces.Discrete(3)
        self.observation_space = spaces.Dict(
            {
                "claimants": spaces.Box(-10, 10, (n_max, len(FEATURES)), np.float32),
                "context": spaces.Box(-10, 10, (5,), np.float32),
                "present": spaces.MultiBinary(n_max),
                "action_mask": spaces.MultiBinary(3),
            }
        )

    def begin(self, outcome: ActivationOutcome) -> ActivationMemory:
        """See `Problem.begin`."""
        added = (outcome.keep_time - outcome.time) / outcome.keep_time
        legal = legal_actions(outcome.profile, outcome.action, outcome.step)
        return ActivationMemory(
            outcome.profile, outcome.action, outcome.step, outcome.peak, added, legal, outcome.done
        )

    def update(self, memory: ActivationMemory, outcome: ActivationOutcome) -> ActivationMemory:
        """See `Problem.update`."""
        return self.begin(outcome)

    def masks(self, memory: ActivationMemory) -> np.ndarray:
        """``(batch, 3)`` bool, the legal actions."""
        return memory.legal

    def encode(self, memory: ActivationMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        p = memory.profile
        batch, n = p.size.shape
        budget = p.budget[:, None].astype(float)
        whole = (p.forward + p.backward).sum(1, keepdims=True)
        rows = np.zeros((batch, n, len(FEATURES)), np.float32)
        for k, v in enumerate((p.size, p.left_recompute, p.left_offload)):
            rows[..., k] = np.minimum(10 * v / budget, 10)
        rows[..., 3] = np.minimum(10 * p.recompute / whole, 10)
        rows[..., 4] = np.minimum(10 * p.size / p.rate[:, None] / whole, 10)
        rows[..., 5] = np.minimum(10 * p.work[..., RECOMPUTE] / budget, 10)
        rows[..., 6] = np.arange(n)[None] < memory.step[:, None]
        rows[..., 7] = np.arange(n)[None] == memory.step[:, None]
        rows[~p.present] = 0
        count = p.present.sum(1)
        context = np.stack(
            [
                memory.step / count,
                np.clip(memory.objective, -10, 0),
                np.minimum(memory.peak / p.budget, 10),
                p.overlap,
                np.minimum(p.base / p.budget, 10),
            ],
            1,
        )
        return {
            "claimants": rows,
            "context": context.astype(np.float32),
            "present": p.present.astype(np.int8),
            "action_mask": memory.legal.astype(np.int8),
        }

    def decode(self, action: np.ndarray, memory: ActivationMemory) -> GroupChoice:
        """See `Problem.decode`."""
        pick = self.check_action(action, len(memory.step)).astype(np.int64)
        if ((pick < 0) | (pick > 2)).any():
            raise AllocgymError(f"action: 0 to 2 expected, given {pick}")
        if self.illegal == "recompute":
            legal = memory.legal[np.arange(len(pick)), pick]
            return GroupChoice(np.where(legal, pick, RECOMPUTE))
        choice = GroupChoice(pick)
        self.check(choice, memory)
        return choice

    def action_of(self, decision: GroupChoice, memory: ActivationMemory) -> np.ndarray:
        """See `Problem.action_of`."""
        return decision.pick

    def cost(self, decision: GroupChoice) -> np.ndarray:
        """One decision (none for -1)."""
        return (decision.pick >= 0).astype(np.int64)

    def reward(self, before: ActivationMemory, after: ActivationMemory) -> dict[str, np.ndarray]:
        """Minus the time this choice adds, over the keep-all time."""
        return {"added": after.objective - before.objective}

    def check(self, decision: GroupChoice, memory: ActivationMemory) -> None:
        """See `Problem.check`."""
        pick = decision.pick
        legal = memory.legal[np.arange(len(pick)), pick] & (pick >= 0) | memory.done
        if not legal.all():
            row = int(np.argmin(legal))
            raise AllocgymError(
                f"action: {ACTIONS[int(pick[row])]} of group {int(memory.step[row])} leaves no "
                f"plan within the budget (ask action_masks())"
            )

    def tabulate(self, decision: GroupChoice, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        return {"choice": ACTIONS[int(decision.pick[0])]}

    def describe(self, memory: ActivationMemory) -> dict[str, Any]:
        """Numbers for a status line."""
        return {"step": int(memory.step[0]), "added": -float(memory.objective[0])}


def profile_from_json(data: Mapping[str, Any], n_max: int, budget: float = 0.5) -> Profile:
    """Build a profile of one row.

    Args:
        data: ``size``, ``left_recompute``, ``left_offload``, ``work``, ``forward``, ``backward``,
            ``recompute`` by group; ``base``, ``head``, ``rate``, ``overlap``.
        n_max: rows.
        budget: 0 (everything recomputed) to 1 (everything kept).
    """
    n = len(data["size"])
    if n > n_max:
        raise AllocgymError(f"n_max: {n} groups, {n_max} rows; raise n_max")

    def wide(name: str) -> np.ndarray:
        out = np.zeros((1, n_max))
        out[0, :n] = data[name]
        return out

    work = np.zeros((1, n_max, 3))
    work[0, :n] = data["work"]
    present = np.zeros((1, n_max), bool)
    present[0, :n] = True
    made = Profile(
        wide("size"),
        wide("left_recompute"),
        wide("left_offload"),
        work,
        wide("forward"),
        wide("backward"),
        wide("recompute"),
        np.array([float(data["base"])]),
        np.array([float(data["head"])]),
        np.array([float(data["rate"])]),
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
