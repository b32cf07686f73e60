"""Few numbers tuned by evolution on instances drawn from a simulator."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allocgym.envs.core.errors import missing_extra


def tune(
    score: Callable[[list[float], np.ndarray], float],
    batch: int,
    start: Sequence[float],
    spread: float,
    iterations: int,
    seed: int = 0,
    population: int | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[list[float], dict[str, Any]]:
    """Minimise a score by CMA-ES, on fresh instances every generation.

    Args:
        score: of parameters on the episodes of ``(batch,)`` seeds; lower is better.
        batch: episodes a candidate is scored on.
        start: first guess.
        spread: first step size.
        iterations: generations.
        seed: of the search and of the instances.
        population: candidates a generation (default: as CMA-ES sets it for the dimension).
        progress: called with (generation, minus the best score).

    Returns:
        The parameters, rounded to six places, and what should be recorded of the training.

    Raises:
        ImportError: ``cma`` is not installed.
    """
    try:
        import cma
    except ImportError as error:
        raise missing_extra("cma", "learn") from error
    begun = time.perf_counter()
    options: dict[str, Any] = {"seed": seed + 1, "verbose": -9}
    if population is not None:
        options["popsize"] = population
    search = cma.CMAEvolutionStrategy(list(start), spread, options)
    for iteration in range(iterations):
        # Training seeds live above 2**40: no benchmark seed can meet them.
        seeds = 2**40 + (seed * iterations + iteration) * batch + np.arange(batch)
        candidates = search.ask()
        scores = [score(parameters.tolist(), seeds) for parameters in candidates]
        search.tell(candidates, scores)
        if progress is not None:
            progress(iteration + 1, -min(scores))
    return [round(float(v), 6) for v in search.result.xfavorite], {
        "trainer": "CMA-ES",
        "iterations": iterations,
        "seed": seed,
        "episodes": iterations * batch * search.popsize,
        "seconds": round(time.perf_counter() - begun, 1),
    }
