"""A parametric heuristic: few numbers, tuned by CMA-ES in the simulator, hard to beat."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allocgym.agents.core.agent import rollout
from allocgym.agents.data_mixing.heuristics import MixingAgent
from allocgym.envs.core.errors import AllocgymError, missing_extra
from allocgym.envs.data_mixing.problem import ROW_FEATURES, DataMixing

TERMS = (
    "log weight", "log prior", "is source", "log loss / start", "log loss slope",
    "slack to lowest", "progress x source", "learning rate x source",
)  # fmt: skip


class IndexMixer(MixingAgent):
    """``share_j ~ exp(w . terms_j)``; the terms are those of the observation, named in `TERMS`."""

    def __init__(
        self, problem: DataMixing, weights: Sequence[float], name: str = "index (cma)"
    ) -> None:
        super().__init__(problem)
        if len(weights) != len(TERMS):
            raise AllocgymError(f"weights: {len(TERMS)} numbers expected, given {len(weights)}")
        self.weights = np.asarray(weights, float)
        self.name = name

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        observation = self.problem.encode(self.memory)
        rows = observation["claimants"].astype(float)
        context = observation["context"].astype(float)
        column = {name: rows[..., i] for i, name in enumerate(ROW_FEATURES)}
        source = column["is source"]
        terms = (
            column["log weight x K"], column["log prior x K"], source,
            column["log loss / start"], column["log loss slope, 1 period"],
            column["log loss / own lowest"], context[:, :1] * source, context[:, 2:3] * source,
        )  # fmt: skip
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
    try:
        import cma
    except ImportError as error:
        raise missing_extra("cma", "learn") from error
    begun = time.perf_counter()
    start = np.zeros(len(TERMS))
    start[0] = 1.0
    search = cma.CMAEvolutionStrategy(start, 0.5, {"seed": seed + 1, "verbose": -9})
    batch = backend.spec.batch_size
    for iteration in range(iterations):
        seeds = 2**40 + (seed * iterations + iteration) * batch + np.arange(batch)
        candidates = search.ask()
        scores = []
        for weights in candidates:
            agent = IndexMixer(problem, weights)
            rollout(agent, backend, seeds)
            memory = agent.memory
            scores.append(
                float(np.mean(memory.objective + memory.instance.penalty * memory.violation))
            )
        search.tell(candidates, scores)
        if progress is not None:
            progress(iteration + 1, -min(scores))
    weights = [round(float(w), 6) for w in search.result.xfavorite]
    return IndexMixer(problem, weights), {
        "trainer": "CMA-ES", "iterations": iterations, "seed": seed,
        "episodes": iterations * batch * search.popsize,
        "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip
