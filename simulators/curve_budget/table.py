"""Recorded learning curves: two public collections and one that is made up."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
from collections.abc import Callable

import numpy as np

from allocgym.envs.core import randomness
from allocgym.simulators.core import public_data
from allocgym.simulators.curve_budget.scenario import POINTS

LOWER_IS_BETTER = ("wer",)
"""AlgoPerf metrics that are losses; of the others, 1 minus the metric is."""
FEWEST = 100
"""An AlgoPerf workload with fewer runs is no task here."""


@dataclasses.dataclass(frozen=True)
class Table:
    """Curves of one task.

    Attributes:
        name: of the task.
        valid, test: ``(configurations, POINTS)`` lowest validation loss so far, and test loss where it
            was reached, both over the median first validation loss.
        length: ``(configurations,)`` units before the curve ends in NaN (`POINTS` - 1: it does not).
        target: published loss to reach in the same unit, or None.
    """

    name: str
    valid: np.ndarray
    test: np.ndarray
    length: np.ndarray
    target: float | None = None


def _table(name: str, valid: np.ndarray, test: np.ndarray, target: float | None = None) -> Table:
    """Clean raw losses ``(configurations, POINTS)``; NaN ends a curve."""
    usable = np.isfinite(valid[:, 0])
    valid, test = valid[usable].astype(float), test[usable].astype(float)
    scale = float(np.median(valid[:, 0]))
    ended = np.logical_or.accumulate(~np.isfinite(valid), axis=1)
    shown = np.where(ended, np.inf, valid)
    lowest = np.minimum.accumulate(shown, 1)
    # Where the lowest loss so far was reached.
    place = np.maximum.accumulate(np.where(shown <= lowest, np.arange(valid.shape[1]), 0), 1)
    reached = np.take_along_axis(test, place, 1)
    length = valid.shape[1] - 1 - ended.sum(1)
    floor = 1e-4
    return Table(
        name,
        np.maximum(lowest / scale, floor),
        np.maximum(reached / scale, floor),
        length,
        None if target is None else max(target / scale, floor),
    )


@functools.cache
def taskset() -> tuple[Table, ...]:
    """Eight tasks of TaskSet, 1,000 configurations of an Adam variant each."""
    root = public_data.path("population/taskset_dpl")
    tables = []
    for file in sorted(root.glob("*.npz")):
        with np.load(file) as data:
            tables.append(_table(file.stem, data["valid"], data["test"]))
    return tuple(tables)


@functools.cache
def algoperf() -> tuple[Table, ...]:
    """Workloads of AlgoPerf with `FEWEST` runs or more, on a grid of `POINTS` up to the step hint.

    A run that was ended early (most often because the target was reached) keeps its best value. Only
    validation metrics are recorded, so the test loss is the validation loss.
    """
    root = public_data.path("population/algoperf")
    with gzip.open(root / "runs.csv.gz", "rt") as file:
        runs = {int(row["run_id"]): row for row in csv.DictReader(file)}
    with np.load(root / "curves.npz") as data:
        ids, step, metric = data["run_id"], data["global_step"], data["valid_metric"]
    order = np.lexsort((step, ids))
    ids, step, metric = ids[order], step[order], metric[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    found: dict[str, list[np.ndarray]] = {}
    targets: dict[str, float] = {}
    for a, b in zip(starts, [*starts[1:], len(ids)], strict=True):
        run = runs[int(ids[a])]
        good = np.isfinite(metric[a:b])
        if not good.any():
            continue
        loss = metric[a:b][good].astype(float)
        target = float(run["target"])
        if run["metric"] not in LOWER_IS_BETTER:
            loss, target = 1 - loss, 1 - target
        grid = np.linspace(0, float(run["step_hint"]), POINTS)
        place = np.searchsorted(step[a:b][good], grid, side="right") - 1
        best = np.minimum.accumulate(loss)
        found.setdefault(run["workload"], []).append(best[np.maximum(place, 0)])
        targets[run["workload"]] = target
    tables = []
    for name, curves in sorted(found.items()):
        if len(curves) >= FEWEST:
            array = np.stack(curves)
            tables.append(_table(name, array, array, targets[name]))
    return tuple(tables)


@functools.cache
def synthetic() -> tuple[Table, ...]:
    """Twelve made-up tasks: power laws with noise, some of which diverge. Drawn, not fitted."""
    tables = []
    x = np.arange(POINTS)
    for task in range(12):
        rng = randomness.generator(task, "synthetic-curves")
        count = 200
        floor = rng.beta(2, 3, (count, 1)) * 0.8 + 0.05
        power = np.exp(rng.normal(-0.3, 0.6, (count, 1)))
        delay = np.exp(rng.normal(1.0, 1.0, (count, 1)))
        clean = floor + (1 - floor) * (1 + x / delay) ** -power
        valid = clean * np.exp(rng.normal(0, 0.01, clean.shape))
        test = clean * np.exp(rng.normal(0, 0.01, clean.shape))
        ends = np.where(rng.random(count) < 0.1, rng.integers(1, POINTS, count), POINTS)
        valid[x >= ends[:, None]] = np.nan
        tables.append(_table(f"synthetic-{task}", valid, test))
    return tuple(tables)


TABLES: dict[str, Callable[[], tuple[Table, ...]]] = {
    "synthetic": synthetic,
    "taskset": taskset,
    "algoperf": algoperf,
}
