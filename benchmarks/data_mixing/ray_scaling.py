"""``--suite scaling``: cells per minute with one and two workers, on either engine, and what one adds."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from allocgym.benchmarks.core import engines
from allocgym.benchmarks.core import suite as suites
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.benchmarks.data_mixing.cells import describe, run_cell

CELL: dict[str, Any] = {"steps": 40, "horizon": 4, "valid_windows": 8, "test_windows": 8}


def nothing(cell: dict[str, Any]) -> dict[str, Any]:
    """Do nothing: what a cell costs on top of its work."""
    return {"done": cell["index"]}


def rate(work: Any, cells: list[dict[str, Any]], processes: int) -> float:
    """Cells per minute; the first few warm the workers up."""
    with tempfile.TemporaryDirectory() as folder:
        suites.run_cells(cells[:processes], work, Path(folder), processes)
        begun = time.perf_counter()
        suites.run_cells(cells, work, Path(folder), processes)
        return 60 * (len(cells) - processes) / (time.perf_counter() - begun)


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    count = 8 if options.quick else 24
    cells = [describe("scratch", CELL, "uniform", seed) for seed in range(count)]
    empty = [{"index": i} for i in range(200)]
    rows: list[list[Any]] = []
    for workers in (1, 2):
        rows.append(
            ["local", workers, rate(run_cell, cells, workers), rate(nothing, empty, workers)]
        )
    for workers in (1, 2):
        with engines.local_cluster(workers) as address, engines.using("ray", address):
            rows.append(
                ["ray", workers, rate(run_cell, cells, workers), rate(nothing, empty, workers)]
            )
    show("cells per minute", ["engine", "workers", "real runs of 40 steps", "empty cells"], rows)
    figures = [
        Figure(
            f"{engine}, {workers} workers: cells/min",
            round(real, 1),
            "printed",
            None,
            "aim",
            f"{60_000 / empty_rate:.1f} ms a cell on top of its work",
        )
        for engine, workers, real, empty_rate in rows
    ]
    return finish("scaling", figures, {"rows": rows}, begun, options)
