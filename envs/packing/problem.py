"""Packing: offsets for buffers whose lifetimes are fixed, at the least height."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.choice import Choice, ChoiceProblem
from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record

FEATURES = (
    "size",
    "lifetime",
    "birth",
    "contention",
    "neighbours left",
    "placed",
    "offset",
    "top it would reach",
)


@dataclasses.dataclass(eq=False)
class PackingState(Record):
    """A batch of instances, padded, and what is placed so far.

    Attributes:
        lower, upper, size, contention: ``(batch, n)`` of the buffers.
        offset: ``(batch, n)`` bytes, -1 where not placed.
        top, near: ``(batch, n)`` see `look_ahead`.
        present: ``(batch, n)`` bool, not padding.
        capacity, peak, height: ``(batch,)`` bytes there are, the bound, and reached so far.
    """

    lower: np.ndarray
    upper: np.ndarray
    size: np.ndarray
    contention: np.ndarray
    offset: np.ndarray
    top: np.ndarray
    near: np.ndarray
    present: np.ndarray
    capacity: np.ndarray
    peak: np.ndarray
    height: np.ndarray


@dataclasses.dataclass(eq=False)
class PackingOutcome(Outcome):
    """What is known after a placement; ``step`` is ``(batch,)`` buffers placed."""

    step: np.ndarray
    state: PackingState

    @property
    def height(self) -> np.ndarray:
        """``(batch,)`` height so far over the capacity."""
        share: np.ndarray = self.state.height / self.state.capacity
        return share


@dataclasses.dataclass(eq=False)
class PackingMemory(Record):
    """What an agent remembers; ``objective`` is minus the height over the capacity (-1 or more: fits)."""

    step: np.ndarray
    objective: np.ndarray
    done: np.ndarray
    state: PackingState


class Packing(ChoiceProblem[PackingOutcome, PackingMemory]):
    """See `PackingEnv`.

    Args:
        n_max: rows of buffers (1 to 4,096).
        strict: a buffer that cannot be chosen raises; otherwise the first one left is placed.
    """

    id: ClassVar[str] = "packing"
    outcome_type = PackingOutcome
    decision_type = Choice
    features = FEATURES
    traces: ClassVar[Mapping[str, str]] = {"height": "height over the capacity (1 or less fits)"}

    def __init__(self, n_max: int = 64, strict: bool = False) -> None:
        super().__init__(n_max, strict)

    def begin(self, outcome: PackingOutcome) -> PackingMemory:
        """See `Problem.begin`."""
        s = outcome.state
        return PackingMemory(outcome.step, -s.height / s.capacity, outcome.done, s)

    def legal(self, memory: PackingMemory) -> np.ndarray:
        """See `ChoiceProblem.legal`: the buffers left; one where the episode is over."""
        left = memory.state.present & (memory.state.offset < 0)
        left[memory.done, 0] = True
        return left

    def encode(self, memory: PackingMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        s = memory.state
        unit = s.capacity[:, None].astype(float)
        begin = np.where(s.present, s.lower, np.iinfo(np.int64).max).min(1, keepdims=True)
        span = np.maximum(s.upper.max(1, keepdims=True) - begin, 1)
        count = np.maximum(s.present.sum(1, keepdims=True), 1)
        placed = s.offset >= 0
        rows = np.stack(
            [
                4 * s.size / unit,
                (s.upper - s.lower) / span,
                (s.lower - begin) / span,
                s.contention / unit,
                4 * s.near / count,
                placed,
                np.where(placed, s.offset, 0) / unit,
                s.top / unit,
            ],
            -1,
        )
        rows = np.clip(rows, -10, 10)
        context = np.stack(
            [
                memory.step / count[:, 0],
                np.minimum(s.height / s.capacity, 10),
                np.minimum(s.peak / s.capacity, 10),
                np.log1p(count[:, 0]) / 4,
            ],
            1,
        )
        return self.observation(rows, context, s.present, memory)

    def refusal(self, pick: int, row: int, memory: PackingMemory) -> str:
        """See `ChoiceProblem.refusal`."""
        return f"buffer {pick} is placed already, or padding (ask action_masks())"

    def reward(self, before: PackingMemory, after: PackingMemory) -> dict[str, np.ndarray]:
        """Minus the height added by this buffer, over the capacity; the return is minus the height."""
        return {"height": after.objective - before.objective}

    def tabulate(self, decision: Choice, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        return {"choice": f"buffer {decision.pick[0]}"}

    def scores(self, memory: PackingMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: the height so far, and whether it fits."""
        height = -memory.objective
        return {"height (over capacity)": height, "fits": (height <= 1).astype(float)}

    def status(self, decision: Choice, outcome: PackingOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: which buffer was placed, and the height so far."""
        placed = self.tabulate(decision, names)["choice"]
        return f"{placed}, {int(outcome.step[0])} placed, height {outcome.height[0]:.3f} of the capacity"
