"""Solvers as agents: they plan when the episode starts and play the plan, in either game."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.memory_mapping import order as orders
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.placer import Placer
from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY, Plan
from allocgym.envs.memory_mapping.problem import Choice, MappingOutcome, MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program

Order = Callable[[Program, Device], np.ndarray]


def actions_of(program: Program, plan: Plan) -> np.ndarray:
    """``(segments,)`` drop, stay or copy of a plan."""
    out = np.full(len(program.segments), DROP)
    index = {(s.tensor, s.use): i for i, s in enumerate(program.segments)}
    for r in plan.residences:
        for n, use in enumerate(r.uses):
            out[index[r.tensor, use]] = COPY if n == 0 and r.traffic is not None else STAY
    return out


class Player(Agent[MappingOutcome, Choice]):
    """Decides for the rows that are not over yet."""

    def _choice(self, pick: np.ndarray) -> Choice:
        return Choice(np.where(self.memory.done, -1, pick))


class DropAll(Player):
    """Everything stays in slow memory (segment game only)."""

    name = "drop-all"

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        if self.problem.order:  # type: ignore[attr-defined]
            return self._choice(self.problem.masks(self.memory).argmax(1))  # type: ignore[attr-defined]
        return self._choice(np.zeros(len(self.memory.step), np.int64))


class Myopic(Player):
    """The legal action that saves most now; in the order game the first tensor left."""

    name = "myopic"

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory, problem = self.memory, self.problem
        if problem.order:  # type: ignore[attr-defined]
            return self._choice(problem.masks(memory).argmax(1))  # type: ignore[attr-defined]
        score = np.where(memory.legal, memory.gain, -np.inf)
        return self._choice(score.argmax(1))


class RandomPlayer(Player):
    """A legal action at random."""

    name = "random"

    def _start(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        masks = self.problem.masks(self.memory)  # type: ignore[attr-defined]
        return self._choice((self._rng.random(masks.shape) * masks).argmax(1))


class Learned(PolicyAgent):
    """A policy that plays the rows that are not over yet."""

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        pick: np.ndarray = super().ask().pick
        return Choice(np.where(self.memory.done, -1, pick))


class OrderAgent(Player):
    """Plays an order of tensors.

    In the order game it is played as it is. In the segment game the plan it leads to is replayed in
    program order, where offsets and copies may fall differently: an action that is not legal there is
    a drop.
    """

    def __init__(self, problem: MemoryMapping, order: Order, name: str) -> None:
        super().__init__(problem)
        self.order, self.name = order, name
        self._plans: dict[int, np.ndarray] = {}

    def _start(self) -> None:
        self._plans = {}

    def _plan(self, row: int) -> np.ndarray:
        memory = self.memory
        program, device = boards.unpack(memory.instance, row)
        order = self.order(program, device)
        if self.problem.order:  # type: ignore[attr-defined]
            return order
        placer = Placer(program, device)
        placer.order(order)
        return actions_of(program, placer.plan)

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory: Any = self.memory
        problem: Any = self.problem
        masks = problem.masks(memory)
        pick = masks.argmax(1)
        for row in range(len(pick)):
            if memory.done[row]:
                continue
            step = int(memory.step[row])
            if step == 0 or row not in self._plans:
                self._plans[row] = self._plan(row)
            wanted = int(self._plans[row][step])
            if masks[row, wanted]:
                pick[row] = wanted
        return self._choice(pick)


def searching(starts: list[Order], seconds: float, seed: int = 0) -> Order:
    """An order found by climbing from the best of some starts for ``seconds`` of CPU time."""

    def order(program: Program, device: Device) -> np.ndarray:
        placer = Placer(program, device)
        return orders.climb(placer, [s(program, device) for s in starts], seconds, seed).order

    return order
