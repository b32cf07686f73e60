"""Agents of memory mapping: rules for the segment at hand, orders of tensors, trained policies."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.memory_mapping import order as orders
from allocgym.agents.memory_mapping.priority import Priorities
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY, Plan
from allocgym.envs.memory_mapping.problem import MappingOutcome, MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program


class Player(Agent[MappingOutcome, Choice]):
    """Decides for the rows that are not over yet."""

    problem: MemoryMapping

    def _choice(self, pick: np.ndarray) -> Choice:
        return Choice(np.where(self.memory.done, -1, pick))

    def _first(self) -> np.ndarray:
        """The first legal action of each row."""
        return self.problem.legal(self.memory).argmax(1)


class DropAll(Player):
    """Everything stays in slow memory; in the order game the first tensor left."""

    name = "drop-all"
    plays: Mapping[str, Any] = {"order": False}

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        if self.problem.order:
            return self._choice(self._first())
        return self._choice(np.full(len(self.memory.step), DROP))


class Myopic(Player):
    """The legal action that saves most now; in the order game the first tensor left."""

    name = "myopic"
    plays: Mapping[str, Any] = {"order": False}

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory = self.memory
        if self.problem.order:
            return self._choice(self._first())
        return self._choice(np.where(memory.legal, memory.gain, -np.inf).argmax(1))


class RandomPlayer(Player):
    """A legal action at random, in either game."""

    name = "random"

    def _start(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        legal = self.problem.legal(self.memory)
        return self._choice((self._rng.random(legal.shape) * legal).argmax(1))


class OrderAgent(Player):
    """Plays an order of tensors.

    In the order game it is played as it is. In the segment game the plan it leads to is replayed in
    program order, where offsets and copies may fall differently: an action that is not legal there is
    a drop.
    """

    plays: Mapping[str, Any] = {"order": True}

    @abstractmethod
    def order(self, program: Program, device: Device) -> np.ndarray:
        """Indices of the tensors that are read, the first to be placed first."""

    def _start(self) -> None:
        self._plans: dict[int, np.ndarray] = {}

    def _plan(self, row: int) -> np.ndarray:
        program, device = boards.unpack(self.memory.instance, row)
        order = self.order(program, device)
        if self.problem.order:
            return order
        game = Game(program, device)
        game.order(order)
        return actions_of(program, game.plan)

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory = self.memory
        legal = self.problem.legal(memory)
        pick = legal.argmax(1)
        for row in np.flatnonzero(~memory.done).tolist():
            step = int(memory.step[row])
            if step == 0 or row not in self._plans:
                self._plans[row] = self._plan(row)
            wanted = int(self._plans[row][step])
            if legal[row, wanted]:
                pick[row] = wanted
        return self._choice(pick)


class RuleAgent(OrderAgent):
    """A greedy rule.

    Args:
        problem: `MemoryMapping`.
        rule: of `order.GREEDY`.
    """

    def __init__(self, problem: MemoryMapping, rule: str) -> None:
        super().__init__(problem)
        if rule not in orders.GREEDY:
            raise unknown("rule", rule, orders.GREEDY)
        self.name = rule

    def order(self, program: Program, device: Device) -> np.ndarray:
        """See `OrderAgent.order`."""
        return orders.GREEDY[self.name](program, device)


class ClimbAgent(OrderAgent):
    """Climbs from the best greedy rule when the episode starts.

    Args:
        problem: `MemoryMapping`.
        seconds: CPU time for each episode.
    """

    name = "order-climb"

    def __init__(self, problem: MemoryMapping, seconds: float = 0.1) -> None:
        super().__init__(problem)
        self.seconds = seconds

    def order(self, program: Program, device: Device) -> np.ndarray:
        """See `OrderAgent.order`."""
        starts = [rule(program, device) for rule in orders.GREEDY.values()]
        return orders.climb(Game(program, device), starts, self.seconds).order


class PriorityAgent(OrderAgent):
    """Learned priorities.

    Args:
        problem: `MemoryMapping`.
        priorities: the portfolio.
        name: shown in tables.
    """

    def __init__(self, problem: MemoryMapping, priorities: Priorities, name: str) -> None:
        super().__init__(problem)
        self.priorities, self.name = priorities, name

    @classmethod
    def from_file(
        cls, problem: MemoryMapping, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> Self:
        """Rebuild from an agent file."""
        return cls(problem, Priorities.of(settings, tensors), name)

    def order(self, program: Program, device: Device) -> np.ndarray:
        """See `OrderAgent.order`."""
        return self.priorities.order(program, device)


class SegmentAgent(PolicyAgent):
    """A trained policy of the segment game."""

    plays: Mapping[str, Any] = {"order": False}

    @classmethod
    def from_file(
        cls, problem: MemoryMapping, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> Self:
        """Rebuild from an agent file.

        Raises:
            AllocgymError: the problem is the order game.
        """
        from allocgym.agents.core import segment_policy as segments

        if problem.order:
            raise AllocgymError(
                f"agent {name!r}: plays the segment game; make the problem with order=False"
            )
        return cls(problem, segments.of(settings, tensors), name)


def actions_of(program: Program, plan: Plan) -> np.ndarray:
    """``(segments,)`` drop, stay or copy of a plan."""
    out = np.full(len(program.segments), DROP)
    index = {(s.tensor, s.use): i for i, s in enumerate(program.segments)}
    for r in plan.residences:
        for n, use in enumerate(r.uses):
            out[index[r.tensor, use]] = COPY if n == 0 and r.traffic is not None else STAY
    return out
