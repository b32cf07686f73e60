"""Agents of packing: they plan an order when the episode starts and play it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.agents.packing.order import ORDERS, offsets
from allocgym.agents.packing.priority import Priorities
from allocgym.agents.packing.solver import SOLVERS, solve
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.errors import unknown
from allocgym.envs.packing.buffer import Buffers
from allocgym.envs.packing.problem import Packing, PackingOutcome


class Packer(Agent[PackingOutcome, Choice]):
    """Plans an order of the buffers and plays it."""

    @abstractmethod
    def order(self, b: Buffers) -> np.ndarray:
        """``(n,)`` indices, the first to be placed first."""

    def _start(self) -> None:
        self._plans: dict[int, np.ndarray] = {}

    def _plan(self, row: int) -> np.ndarray:
        s = self.memory.state
        here = np.flatnonzero(s.present[row])
        lower, upper, size = (column[row, here] for column in (s.lower, s.upper, s.size))
        return here[self.order(Buffers(f"row-{row}", lower, upper, size, int(s.capacity[row])))]

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory = self.memory
        pick = np.full(len(memory.step), -1)
        for row in np.flatnonzero(~memory.done).tolist():
            step = int(memory.step[row])
            if step == 0 or row not in self._plans:
                self._plans[row] = self._plan(row)
            pick[row] = self._plans[row][step]
        return Choice(pick)


class RandomPacker(Packer):
    """Any order."""

    name = "random"

    def _start(self) -> None:
        super()._start()
        self._rng = np.random.default_rng(self.seed)

    def order(self, b: Buffers) -> np.ndarray:
        """See `Packer.order`."""
        return self._rng.permutation(len(b.size))


class SolverPacker(Packer):
    """Packs by a solver; by area where it finds nothing.

    Args:
        problem: `Packing`.
        solver: of `solver.SOLVERS`.
        seconds: CPU budget of searches, per episode.
        learned: priorities (default: the shipped ones).
    """

    def __init__(
        self, problem: Packing, solver: str, seconds: float = 0.2, learned: Priorities | None = None
    ) -> None:
        super().__init__(problem)
        if solver not in SOLVERS:
            raise unknown("agent", solver, SOLVERS)
        self.name, self.solver, self.seconds, self.learned = solver, solver, seconds, learned

    def order(self, b: Buffers) -> np.ndarray:
        """See `Packer.order`."""
        found = solve(self.solver, b, self.seconds, self.seed, self.learned)
        at = found.offsets if found.offsets is not None else offsets(b, ORDERS["area"](b))
        # Lowest first: nothing ends up higher than where it was planned.
        return np.argsort(at, kind="stable")


class PriorityPacker(SolverPacker):
    """Packs by learned priorities."""

    @classmethod
    def from_file(
        cls, problem: Packing, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> Self:
        """Rebuild from an agent file."""
        made = cls(problem, "learned", learned=Priorities.of(settings, tensors))
        made.name = name
        return made
