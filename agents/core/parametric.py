"""Agents of a few numbers: named parameters, tuned by evolution, kept in an agent file."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.core.evolution import tune
from allocgym.agents.core.training import Trained, Training
from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.untrusted import numbers


class Parametric(Agent[Any, Any]):
    """Decides by a few real numbers.

    Args:
        problem: what it decides.
        weights: one number for each of ``parameters`` (default: ``start``).
        name: shown in tables.

    Attributes:
        kind: of its agent file.
        parameters: names of the numbers.
        start: where tuning begins.
        spread: first step size of tuning.
        candidates: tried in a generation (default: as CMA-ES sets it for the dimension).
    """

    kind: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]
    start: ClassVar[tuple[float, ...]]
    spread: ClassVar[float] = 0.5
    candidates: ClassVar[int | None] = None

    def __init__(
        self, problem: Problem, weights: Sequence[float] | None = None, name: str = "learned"
    ) -> None:
        super().__init__(problem)
        given = self.start if weights is None else weights
        self.weights = numbers("weights", given, (len(self.parameters),))
        self.name = name

    def price(self) -> float:
        """What tuning minimises, at the end of a batch of episodes: the mean of the judged score."""
        judged = next(iter(self.problem.scores(self.memory).values()))
        return float(np.mean(-judged if self.problem.higher_is_better else judged))

    def to_file(self) -> tuple[str, dict[str, Any], None]:
        """Kind, settings and tensors of the agent file."""
        return self.kind, {"weights": self.weights.tolist()}, None

    @classmethod
    def from_file(
        cls, problem: Problem, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> Self:
        """Rebuild from an agent file (older ones call the numbers ``"parameters"``)."""
        return cls(problem, settings["weights" if "weights" in settings else "parameters"], name)

    @classmethod
    def trained(cls, training: Training, batch: int = 256) -> Trained:
        """Tune the numbers by CMA-ES on episodes drawn from the simulator.

        Raises:
            ImportError: ``cma`` is not installed.
        """
        backend = training.build(batch)

        def price(weights: list[float], seeds: np.ndarray) -> float:
            agent = cls(backend.problem, weights)
            rollout(agent, backend, seeds)
            return agent.price()

        weights, information = tune(
            training.checkpoint.replayed(price),
            batch,
            cls.start,
            cls.spread,
            training.iterations,
            training.seed,
            cls.candidates,
            training.progress,
        )
        return Trained(cls(backend.problem, weights), backend.problem, information)


class LinearScore(Parametric):
    """Gives each claimant a score, ``weights . terms``; what a score is worth, subclasses say."""

    @abstractmethod
    def terms(self) -> np.ndarray:
        """``(batch, n, len(parameters))`` terms of each claimant now."""

    def score(self) -> np.ndarray:
        """``(batch, n)`` scores now."""
        score: np.ndarray = self.terms() @ self.weights
        return score
