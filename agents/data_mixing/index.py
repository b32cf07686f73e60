"""A parametric heuristic: few numbers, tuned by CMA-ES in the simulator, hard to beat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.evolution import tune
from allocgym.agents.data_mixing.heuristics import MixingAgent
from allocgym.envs.data_mixing.observation import ROW_FEATURES
from allocgym.envs.data_mixing.problem import DataMixing

TERMS = (
    "log weight",
    "log prior",
    "is source",
    "log loss / start",
    "log loss slope",
    "slack to lowest",
    "progress x source",
    "learning rate x source",
)


class IndexMixer(MixingAgent):
    """``share_j ~ exp(w . terms_j)``; the terms are those of the observation, named in `TERMS`."""

    def __init__(
        self, problem: DataMixing, weights: Sequence[float], name: str = "index (cma)"
    ) -> None:
        super().__init__(problem)
        self.weights = agent_file.numbers("weights", weights, len(TERMS))
        self.name = name

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        observation = self.problem.encode(self.memory)
        rows = observation["claimants"].astype(float)
        context = observation["context"].astype(float)
        column = {name: rows[..., i] for i, name in enumerate(ROW_FEATURES)}
        source = column["is source"]
        terms = (
            column["log weight x K"],
            column["log prior x K"],
            source,
            column["log loss / start"],
            column["log loss slope, 1 period"],
            column["log loss / own lowest"],
            context[:, :1] * source,
            context[:, 2:3] * source,
        )
        score = sum(w * t for w, t in zip(self.weights, terms, strict=True))
        score = np.where(self.outcome.instance.present, score, -np.inf)
        p = np.exp(score - score.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))


def train(
    problem: DataMixing,
    backend: Any,
    iterations: int = 60,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[IndexMixer, dict[str, Any]]:
    """Tune the weights by CMA-ES on instances drawn from a simulator.

    Raises:
        ImportError: ``cma`` is not installed.
    """

    def score(weights: list[float], seeds: np.ndarray) -> float:
        agent = IndexMixer(problem, weights)
        rollout(agent, backend, seeds)
        memory = agent.memory
        return float(np.mean(memory.objective + memory.instance.penalty * memory.violation))

    start = [1.0, *[0.0] * (len(TERMS) - 1)]
    weights, information = tune(
        score, backend.spec.batch_size, start, 0.5, iterations, seed, progress=progress
    )
    return IndexMixer(problem, weights), information
