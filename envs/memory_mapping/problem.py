"""What is decided in memory mapping: drop, stay or copy for each use; or which tensor comes next."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.choice import Choice, ChoiceProblem
from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record
from allocgym.envs.core.scenario import check_kind, check_numbers
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.board import Board, MappingInstance
from allocgym.envs.memory_mapping.plan import ACTIONS
from allocgym.envs.memory_mapping.program import PAGES
from allocgym.envs.memory_mapping.rule import op_seconds

WINDOW = 16
"""Ops that the profile of fast memory shows, from the event before the current use on."""
FEATURES = (
    "pages",
    "distance",
    "benefit",
    "parameter",
    "first",
    "in fast memory",
    "hidden share",
    "uses to come",
    "legal stay",
    "legal copy",
    "gain stay",
    "gain copy",
)


@dataclasses.dataclass(eq=False)
class MappingOutcome(Outcome):
    """The board after the last choice.

    Attributes:
        step: ``(batch,)`` choices made.
        instance: programs and devices.
        board: state of the games.
    """

    step: np.ndarray
    instance: MappingInstance
    board: Board

    @property
    def saved(self) -> np.ndarray:
        """``(batch,)`` percent of the all-slow time saved so far."""
        percent: np.ndarray = 100 * (1 - self.board.seconds / self.instance.all_slow)
        return percent

    @property
    def used(self) -> np.ndarray:
        """``(batch,)`` percent of fast memory taken, over the ops of the program."""
        real = (self.instance.base > 0) | (self.instance.comp > 0)
        share = (np.bitwise_count(self.board.taken) / PAGES * real).sum(1) / real.sum(1)
        percent: np.ndarray = 100 * share
        return percent


@dataclasses.dataclass(eq=False)
class MappingMemory(Record):
    """What an agent remembers: everything is on the board.

    Attributes:
        step, instance, board: as in the outcome.
        objective: ``(batch,)`` fraction of the all-slow time saved so far (higher is better).
        legal, gain: ``(batch, 3)`` of the current segment (segment game).
        done: ``(batch,)``.
    """

    step: np.ndarray
    objective: np.ndarray
    legal: np.ndarray
    gain: np.ndarray
    done: np.ndarray
    instance: MappingInstance
    board: Board


class MemoryMapping(ChoiceProblem[MappingOutcome, MappingMemory]):
    """See `MemoryMappingEnv`.

    Args:
        order: choose the next tensor instead of deciding segments in program order.
        n_max: rows: segments looked ahead (default 8), or tensors in the order game (default
            ``tensors``).
        strict: an illegal action raises; otherwise it is a drop (in the order game the first tensor
            left).
        tensors: what ``n_max`` is in the order game where it is not given.
    """

    id: ClassVar[str] = "memory-mapping"
    outcome_type = MappingOutcome
    decision_type = Choice
    features = FEATURES
    context = 4 + 2 * WINDOW
    higher_is_better = True
    traces: ClassVar[Mapping[str, str]] = {
        "saved": "time saved so far (% of all-slow)",
        "used": "fast memory taken (mean %)",
    }

    def __init__(
        self,
        order: bool = False,
        n_max: int | None = None,
        strict: bool = False,
        tensors: int = 256,
    ) -> None:
        check_kind("order", "bool", order)
        check_kind("tensors", "int", tensors)
        check_numbers("tensors", tensors, 1, self.most)
        self.order = order
        rows = n_max if n_max is not None else (tensors if order else 8)
        super().__init__(rows, strict, None if order else 3)

    def begin(self, outcome: MappingOutcome) -> MappingMemory:
        """See `Problem.begin`."""
        inst, board = outcome.instance, outcome.board
        batch = len(outcome.step)
        if self.order:
            legal, gain = np.zeros((batch, 3), bool), np.zeros((batch, 3))
        else:
            legal, gain = boards.look(inst, board, np.minimum(outcome.step, inst.count - 1))
        saved = 1 - board.seconds / inst.all_slow
        return MappingMemory(outcome.step, saved, legal, gain, outcome.done, inst, board)

    def legal(self, memory: MappingMemory) -> np.ndarray:
        """See `ChoiceProblem.legal`: drop, stay and copy, or the tensors left."""
        if not self.order:
            return memory.legal.copy()
        inst, board = memory.instance, memory.board
        left = np.zeros((len(memory.step), self.n_max), bool)
        n = min(self.n_max, inst.head.shape[1])
        head = inst.head[:, :n]
        acted = np.take_along_axis(board.acted, np.maximum(head, 0), 1)
        left[:, :n] = (head >= 0) & (acted < 0)
        left[memory.done, 0] = True
        return left

    def refusal(self, pick: int, row: int, memory: MappingMemory) -> str:
        """See `ChoiceProblem.refusal`."""
        return f"{pick} is not legal in environment {row} (ask action_masks())"

    def _segments(self, memory: MappingMemory) -> tuple[np.ndarray, np.ndarray]:
        inst = memory.instance
        if self.order:
            n = min(self.n_max, inst.head.shape[1])
            ids = np.full((len(memory.step), self.n_max), -1)
            ids[:, :n] = inst.head[:, :n]
            live = self.legal(memory) & (ids >= 0)
            return np.maximum(ids, 0), live
        ids = memory.step[:, None] + np.arange(self.n_max)[None]
        live = ids < inst.count[:, None]
        return np.minimum(ids, np.maximum(inst.count[:, None] - 1, 0)), live

    def encode(self, memory: MappingMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        inst, board = memory.instance, memory.board
        ids, live = self._segments(memory)
        batch, t = inst.comp.shape
        take = np.take_along_axis
        x, use, since = take(inst.tensor, ids, 1), take(inst.use, ids, 1), take(inst.since, ids, 1)
        size, pages = take(inst.size, x, 1), take(inst.pages, x, 1)
        rate, quick = inst.slow_rate[:, None], inst.fast_rate[:, None]
        bus = board.slow + board.copied
        comp, load, fast = take(inst.comp, use, 1), take(bus, use, 1), take(board.fast, use, 1)
        now = op_seconds(comp, load, fast, rate, quick)
        then = op_seconds(comp, load - size, fast + size, rate, quick)
        idle = np.maximum((inst.comp - board.fast / quick) * rate - bus, 0)
        behind = np.concatenate([np.zeros((batch, 1)), idle.cumsum(1)], 1)
        room = take(behind, use, 1) - take(behind, since + 1, 1)
        scale = inst.all_slow[:, None] / 100
        mean = scale / inst.count[:, None] * 100
        rows = np.zeros((batch, self.n_max, len(FEATURES)), np.float32)
        rows[..., 0] = np.minimum(pages / PAGES * 4, 10)
        rows[..., 1] = np.log1p(use - since)
        rows[..., 2] = np.clip((now - then) / mean, -10, 10)
        rows[..., 3] = since < 0
        rows[..., 4] = take(inst.first, ids, 1)
        rows[..., 5] = (take(board.offset, x, 1) >= 0) & (take(board.end, x, 1) == since)
        rows[..., 6] = np.minimum(room / np.maximum(size, 1), 2)
        rows[..., 7] = take(inst.following, ids, 1) >= 0
        if not self.order:
            rows[:, 0, 8:10] = memory.legal[:, 1:]
            rows[:, 0, 10:12] = np.clip(memory.gain[:, 1:] / mean, -10, 10)
        context = np.zeros((batch, self.context), np.float32)
        total = inst.tensors if self.order else inst.count
        context[:, 0] = memory.step / total
        context[:, 1] = memory.objective
        context[:, 2] = np.log1p(total) / 4
        begin = np.zeros(batch, np.int64) if self.order else np.maximum(since[:, 0], 0)
        context[:, 3] = begin / t
        spots = np.minimum(begin[:, None] + np.arange(WINDOW)[None], t - 1)
        context[:, 4 : 4 + WINDOW] = 1 - np.bitwise_count(take(board.taken, spots, 1)) / PAGES
        context[:, 4 + WINDOW :] = np.minimum(take(idle, spots, 1) / rate / (mean + 1e-30), 10)
        return self.observation(rows, context, live, memory)

    def reward(self, before: MappingMemory, after: MappingMemory) -> dict[str, np.ndarray]:
        """The fraction of the all-slow time saved by this choice; the return is the final fraction."""
        return {"saved": after.objective - before.objective}

    def scores(self, memory: MappingMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: time saved over the all-slow time."""
        return {"saved (%)": 100 * memory.objective}

    def tabulate(self, decision: Choice, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`."""
        pick = int(decision.pick[0])
        return {"choice": f"tensor {pick}" if self.order else ACTIONS[pick]}

    def status(self, decision: Choice, outcome: MappingOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: what was chosen, and what is saved so far."""
        chosen = self.tabulate(decision, names)["choice"]
        return f"{chosen}, {int(outcome.step[0])} decided, {outcome.saved[0]:.2f} % saved"
