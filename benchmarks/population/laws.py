"""``--suite laws``: the Multi-Power Law on every public curve, and the edge of the noisy quadratic."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.simulators.core import public_data
from allocgym.simulators.core.draw import Draw
from allocgym.simulators.population import multipower
from allocgym.simulators.population.families import FAMILIES


def edge_error(count: int = 200) -> float:
    """Largest distance between where the quadratic diverges and ``2 / h_max``, as a fraction of it."""
    family: Any = FAMILIES["quadratic"]
    law = family.draw(Draw(np.arange(count), 1), 1)
    law.noise = law.noise * 0
    low, high = 0.5 * law.edge, 1.5 * law.edge
    steps = np.full((1, count), 4_000_000)
    for _ in range(40):
        middle = (low + high) / 2
        knobs = np.stack([middle[None], np.full((1, count), 64.0)])
        state = family.train(law, family.begin(law, knobs), knobs, steps)
        grows = state.second[0, 0] > law.start[0]
        low, high = np.where(grows, low, middle), np.where(grows, middle, high)
    return float(np.max(np.abs((low + high) / 2 / law.edge - 1)))


def suite(options: Options) -> int:
    """Run the suite: fits are made anew on three schedules a size, then judged on all nine."""
    begun = time.time()
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    if public_data.available(multipower.FOLDER):
        for size in multipower.sizes():
            law = multipower.fitted().get(size) if options.quick else None
            error = multipower.errors(law or multipower.fit(size), size)
            results[size] = error
            worst = max(error, key=lambda k: error[k])
            figures.append(
                Figure(
                    f"Multi-Power Law, {size}M: largest mean absolute error of {len(error)} curves",
                    error[worst],
                    "< 0.01 nats",
                    error[worst] < 0.01,
                    detail=worst,
                )
            )
        show(
            "mean absolute error, nats per token (fitted on "
            + ", ".join(multipower.FITTED_ON)
            + ")",
            ["curve", *[f"{s}M" for s in results]],
            [[name, *[r.get(name, "") for r in results.values()]] for name in results[size]],
        )
    else:
        figures.append(
            Figure(
                "Multi-Power Law on public curves",
                None,
                "< 0.01 nats",
                None,
                detail=f"skipped: set {public_data.VARIABLE}",
            )
        )
    off = edge_error()
    figures.append(
        Figure(
            "noisy quadratic: diverges past eta h_max = 2, largest error", off, "< 1e-6", off < 1e-6
        )
    )
    return finish("laws", figures, results, begun, options)
