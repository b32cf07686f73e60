"""Activation plans: keep, recompute or offload each group under a physical peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.activation_plan.profile import ACTIONS, RECOMPUTE, Profile, legal_actions
from allocgym.envs.core.choice import Choice, ChoiceProblem
from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record

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
class ActivationOutcome(Outcome):
    """What is known after a choice.

    Attributes:
        action: ``(batch, n)`` decided so far; groups not decided are kept.
        step: ``(batch,)`` groups decided.
        time: ``(batch,)`` seconds of a training step under the plan so far.
        peak: ``(batch,)`` bytes.
        keep_time: ``(batch,)`` seconds with everything kept.
        profile: the training step.
        measured: ``(batch,)`` bool, ``time``, ``peak`` and ``keep_time`` were measured on a machine, not
            predicted (default: predicted).
    """

    action: np.ndarray
    step: np.ndarray
    time: np.ndarray
    peak: np.ndarray
    keep_time: np.ndarray
    profile: Profile
    measured: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measured is None:
            self.measured = self.spent < 0

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

    action: np.ndarray
    step: np.ndarray
    peak: np.ndarray
    objective: np.ndarray
    legal: np.ndarray
    done: np.ndarray
    profile: Profile


class ActivationPlan(ChoiceProblem[ActivationOutcome, ActivationMemory]):
    """See `ActivationPlanEnv`.

    Args:
        n_max: rows, groups of a training step (1 to 512).
        strict: an illegal action raises; otherwise the group is recomputed, which is always legal.
    """

    id: ClassVar[str] = "activation-plan"
    outcome_type = ActivationOutcome
    decision_type = Choice
    features = FEATURES
    context = 5
    most = 512
    instead = RECOMPUTE
    marker = FEATURES.index("position")
    traces: ClassVar[Mapping[str, str]] = {
        "added": "time added so far (%)",
        "fullness": "peak over the budget (1 or less at the end)",
    }

    def __init__(self, n_max: int = 32, strict: bool = False) -> None:
        super().__init__(n_max, strict, 3)

    def begin(self, outcome: ActivationOutcome) -> ActivationMemory:
        """See `Problem.begin`."""
        added = (outcome.keep_time - outcome.time) / outcome.keep_time
        legal = legal_actions(outcome.profile, outcome.action, outcome.step)
        return ActivationMemory(
            outcome.action, outcome.step, outcome.peak, added, legal, outcome.done, outcome.profile
        )

    def legal(self, memory: ActivationMemory) -> np.ndarray:
        """See `ChoiceProblem.legal`: keep, recompute and offload."""
        return memory.legal.copy()

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
        return self.observation(rows, context, p.present, memory)

    def reward(self, before: ActivationMemory, after: ActivationMemory) -> dict[str, np.ndarray]:
        """Minus the time this choice adds, over the keep-all time."""
        return {"added": after.objective - before.objective}

    def scores(self, memory: ActivationMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: time added to the step that keeps everything, and its peak."""
        return {
            "added time (%)": -100 * memory.objective,
            "peak over the budget": memory.peak / memory.profile.budget,
        }

    def refusal(self, pick: int, row: int, memory: ActivationMemory) -> str:
        """See `ChoiceProblem.refusal`."""
        name = ACTIONS[pick] if 0 <= pick < len(ACTIONS) else str(pick)
        return (
            f"{name} of group {int(memory.step[row])} leaves no plan within the budget "
            f"(ask action_masks())"
        )

    def tabulate(self, decision: Choice, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        return {"choice": ACTIONS[int(decision.pick[0])]}

    def status(self, decision: Choice, outcome: ActivationOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: the choice, and what the plan costs so far."""
        word = "measured" if outcome.measured[0] else "predicted"
        return (
            f"{self.tabulate(decision, names)['choice']} group {int(outcome.step[0]) - 1}, "
            f"{outcome.added[0]:+.2f} % time, peak {outcome.fullness[0]:.3f} of the budget ({word})"
        )
