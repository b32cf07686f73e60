"""Agents of strategy selection: rules at the node at hand, a tuned score, the whole-instance search."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.agents.core.parametric import LinearScore
from allocgym.agents.strategy_selection.search import search
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.strategy_selection.problem import SelectionOutcome, StrategySelection


class Selector(Agent[SelectionOutcome, Choice]):
    """Decides the node at hand: the legal strategy of least price."""

    problem: StrategySelection

    @abstractmethod
    def price_each(self) -> np.ndarray:
        """``(batch, n)`` what each strategy of the node at hand costs."""

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        memory = self.memory
        pick = np.where(self.problem.legal(memory), self.price_each(), np.inf).argmin(1)
        return Choice(np.where(memory.done, -1, pick))


class LeastMemory(Selector):
    """The strategy that uses least memory."""

    name = "least-memory"

    def price_each(self) -> np.ndarray:
        """See `Selector.price_each`."""
        return self.memory.table[..., 3]


class Myopic(Selector):
    """The least cost of the node and its edges to decided neighbours."""

    name = "myopic"

    def price_each(self) -> np.ndarray:
        """See `Selector.price_each`."""
        return self.memory.table[..., :2].sum(-1)


class LookAhead(Selector):
    """As `Myopic`, and the least cost that undecided neighbours leave."""

    name = "look-ahead"

    def price_each(self) -> np.ndarray:
        """See `Selector.price_each`."""
        return self.memory.table[..., :3].sum(-1)


class RandomSelector(Selector):
    """Any legal strategy."""

    name = "random"

    def _start(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def price_each(self) -> np.ndarray:
        """See `Selector.price_each`."""
        return self._rng.random(self.memory.legal.shape)


class Search(LookAhead):
    """Searches each whole instance when the episode starts; looks ahead where it finds nothing.

    An outcome does not show the whole instance, so it counts as clairvoyant.

    Args:
        problem: `StrategySelection`.
        seconds: CPU time of the search, per episode.
    """

    name = "search"
    clairvoyant = True

    def __init__(self, problem: StrategySelection, seconds: float = 2.0) -> None:
        super().__init__(problem)
        self.seconds = seconds
        self._plans: list[np.ndarray | None] = []

    def peek(self, backend: Any) -> None:
        """Search each instance."""
        walks = backend.state.walk
        self._plans = [search(w.problem, self.seconds, self.seed).choice for w in walks]

    def ask(self) -> Choice:
        """See `Agent.ask`."""
        choice = super().ask()
        for row, plan in enumerate(self._plans):
            if plan is not None and choice.pick[row] >= 0:
                choice.pick[row] = plan[int(self.memory.step[row])]
        return choice


class Scored(LinearScore, Selector):
    """A tuned score of what a strategy costs, in parts of the node's dearest one."""

    kind = "selection-score"
    parameters = ("node", "decided neighbours", "ahead", "usage", "usage x fullness")
    start = (1.0, 1.0, 1.0, 0.0, 0.0)
    spread = 0.4

    def terms(self) -> np.ndarray:
        """See `LinearScore.terms`."""
        memory = self.memory
        t = np.minimum(memory.table, 1e12)
        whole = np.where(memory.present, t[..., :3].sum(-1), 0).max(1)[:, None, None]
        usage = t[..., 3:4]
        fullness = np.clip(t[..., 4:5], 0, 1) ** 4
        parts = t[..., :3] / np.maximum(whole, 1e-9)
        return np.concatenate([parts, usage, usage * fullness], -1)

    def price_each(self) -> np.ndarray:
        """See `Selector.price_each`."""
        return self.score()

    def to_file(self) -> tuple[str, dict[str, Any], Any]:
        """Kind, settings and tensors of the agent file."""
        import torch

        return self.kind, {"terms": list(self.parameters)}, {"weights": torch.tensor(self.weights)}

    @classmethod
    def from_file(cls, problem: Any, settings: Mapping[str, Any], tensors: Any, name: str) -> Self:
        """Rebuild from an agent file.

        Raises:
            AllocgymError: made for other terms.
            CorruptFileError: no weights.
        """
        if tensors is None or "weights" not in tensors:
            raise CorruptFileError(f"agent file: {cls.kind!r} without weights")
        if settings.get("terms") != list(cls.parameters):
            raise AllocgymError("agent file: made for other terms; retrain it")
        return cls(problem, tensors["weights"].numpy(), name)
