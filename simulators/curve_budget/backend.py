"""Recorded learning curves as a back end: what was trained, and nothing else, can be looked up."""

from __future__ import annotations

import csv
import dataclasses
import functools
import gzip
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.curve_budget.problem import Allotment, CurveBudget, CurveInstance, CurveOutcome
from allocgym.simulators.core import public_data

POINTS = 51
"""Points of a curve: the first before training, then one a unit."""
LOWER_IS_BETTER = ("wer",)
"""AlgoPerf metrics that are losses; of the others, 1 minus the metric is."""
FEWEST = 100
"""An AlgoPerf workload with fewer runs is no task here."""
REACH = 0.95
"""Target where none is published: this share of the way from the best start to the best end."""


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


TABLES = {"synthetic": synthetic, "taskset": taskset, "algoperf": algoperf}


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A distribution of instances: a task, some of its configurations, a budget.

    Attributes:
        name: a key of `TABLES`.
        configurations: n.
        full: budget, in whole curves.
        grant: units a period.
        tasks: names of tasks to draw from; all where empty.
    """

    name: str
    configurations: int = 16
    full: float = 4.0
    grant: int = 2
    tasks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.configurations <= 64:
            raise AllocgymError(f"configurations: 2 to 64 expected, given {self.configurations}")
        if not 0 < self.full <= self.configurations:
            raise AllocgymError(f"full: at most {self.configurations} expected, given {self.full}")
        if self.grant < 1:
            raise AllocgymError(f"grant: an integer >= 1 expected, given {self.grant}")

    def tables(self) -> list[Table]:
        """The tasks to draw from."""
        every = {t.name: t for t in TABLES[self.name]()}
        for name in self.tasks:
            if name not in every:
                raise unknown("tasks", name, every)
        return [every[n] for n in (self.tasks or every)]


class RecordedCurves(Backend[CurveOutcome, Allotment]):
    """Looks up what configurations did when somebody trained them.

    Args:
        problem: `CurveBudget`.
        scenario: a key of `TABLES`, or a `Scenario`.
        num_envs: environments in the batch.
        overrides: fields of the scenario, by keyword.
    """

    def __init__(
        self,
        problem: CurveBudget,
        scenario: str | Scenario = "synthetic",
        num_envs: int = 1,
        **overrides: Any,
    ) -> None:
        if isinstance(scenario, str):
            if scenario not in TABLES:
                raise unknown("scenario", scenario, TABLES)
            scenario = Scenario(scenario)
        self.scenario = replaced(scenario, overrides, f"scenario {scenario.name!r}")
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        if self.scenario.configurations > problem.n_max:
            raise AllocgymError(
                f"n_max: the scenario has {self.scenario.configurations} configurations, "
                f"given {problem.n_max}"
            )
        self._tables = self.scenario.tables()
        self._total = round(self.scenario.full * (POINTS - 1))
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend="replay",
            claimants=tuple(f"configuration-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="point of a curve",
            horizon=-(-self._total // self.scenario.grant),
            batch_size=num_envs,
            capabilities=frozenset(),
            details={"scenario": dataclasses.asdict(self.scenario)},
        )
        super().__init__(spec, problem)
        self.problem: CurveBudget = problem
        self._valid = np.ones((num_envs, problem.n_max, POINTS))
        self._test = np.ones((num_envs, problem.n_max, POINTS))
        self._length = np.zeros((num_envs, problem.n_max), np.int64)
        self._target = np.ones(num_envs)

    def _budget(self) -> np.ndarray:
        return self.outcome.instance.total

    def _draw(self, row: int, seed: int) -> None:
        """Fill one row: task and configurations are functions of the seed."""
        rng = randomness.generator(seed, "recorded-curves")
        table = self._tables[rng.integers(len(self._tables))]
        n = self.scenario.configurations
        picked = rng.choice(len(table.valid), n, replace=False)
        reach = np.array([], int)
        if table.target is not None:
            reach = np.flatnonzero(table.valid[:, -1] <= table.target)
        if len(reach) and table.valid[picked, -1].min() > table.target:
            # A target nobody can reach tells nobody apart: one that does is put among the others.
            picked[rng.integers(n)] = rng.choice(reach)
        self._valid[row, :n], self._test[row, :n] = table.valid[picked], table.test[picked]
        self._length[row, :n] = table.length[picked]
        lowest, end = table.valid[picked, 0].min(), table.valid[picked, -1].min()
        published = table.target is not None and len(reach) > 0
        self._target[row] = table.target if published else lowest - REACH * (lowest - end)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> CurveOutcome:
        for row in np.flatnonzero(where):
            self._draw(int(row), int(seeds[row]))
        batch, n = self.spec.batch_size, self.spec.n_max
        present = np.tile(np.arange(n) < self.scenario.configurations, (batch, 1))
        total = np.full(batch, self._total)
        instance = CurveInstance(
            present, np.full(batch, POINTS - 1), total.copy(), self._target.copy()
        )
        none = np.zeros((batch, n), np.int64)
        fresh = self._report(instance, none, none > 0, none, total, np.zeros(batch, np.int64))
        return fresh if where.all() or self._outcome is None else self._outcome.where(where, fresh)

    def _spend(self, decision: Allotment) -> CurveOutcome:
        if not isinstance(decision, Allotment):
            raise AllocgymError("decision: recorded curves cannot be copied or changed")
        last = self.outcome
        units = decision.units
        if (units < 0).any() or (units > self.problem.room(last)).any():
            raise AllocgymError("units: more than the curves hold, or fewer than 0")
        return self._report(
            last.instance,
            last.used + units,
            last.closed | decision.stop,
            units,
            last.left - units.sum(1),
            last.period + 1,
        )

    def _report(
        self,
        instance: CurveInstance,
        used: np.ndarray,
        closed: np.ndarray,
        units: np.ndarray,
        left: np.ndarray,
        period: np.ndarray,
    ) -> CurveOutcome:
        look = used[..., None]
        valid = np.take_along_axis(self._valid, look, 2)[..., 0]
        test = np.take_along_axis(self._test, look, 2)[..., 0]
        batch = self.spec.batch_size
        out = CurveOutcome(
            spent=units.sum(1),
            seconds=units.sum(1).astype(float),
            ready=instance.present.copy(),
            valid=np.ones(batch, bool),
            failure=np.zeros(batch, np.int64),
            done=np.zeros(batch, bool),
            scores=valid,
            heldout=test,
            alive=(used <= self._length) | ~instance.present,
            closed=closed,
            used=used,
            grant=left,
            left=left,
            period=period,
            instance=instance,
        )
        room = self.problem.room(out).sum(1)
        out.grant = np.minimum(np.minimum(left, self.scenario.grant), room)
        out.done = out.grant == 0
        return out
