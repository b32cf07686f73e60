"""Recorded learning curves as a back end: what was trained, and nothing else, can be looked up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.record import Record
from allocgym.envs.curve_budget.problem import (
    Allotment,
    CurveBudget,
    CurveInstance,
    CurveOutcome,
    room,
)
from allocgym.simulators.core.simulator import Simulator
from allocgym.simulators.curve_budget.scenario import POINTS, SCENARIOS, CurveScenario
from allocgym.simulators.curve_budget.table import TABLES, Table

REACH = 0.95
"""Target where none is published: this share of the way from the best start to the best end."""


@dataclasses.dataclass(eq=False)
class CurveState(Record):
    """All there is of a batch of running episodes.

    Attributes:
        instance: what agents know.
        curve: ``(batch, n)`` int64 place of each configuration's curve in the back end's `Shelf`.
        used: ``(batch, n)`` int64 units spent on each.
        closed: ``(batch, n)`` bool, stopped for good.
        left, period, spent: ``(batch,)`` int64 units left, decisions made, units of the last one.
    """

    instance: CurveInstance
    curve: np.ndarray
    used: np.ndarray
    closed: np.ndarray
    left: np.ndarray
    period: np.ndarray
    spent: np.ndarray


class Shelf:
    """Curves of several tasks, one below the other; the last one is padding.

    Attributes:
        tables: by task.
        first: place of each task's first curve.
        valid, test: ``(curves, POINTS)`` as in `Table`.
        length: ``(curves,)`` as in `Table`.
    """

    def __init__(self, tables: list[Table]) -> None:
        self.tables = tables
        self.first = np.cumsum([0, *[len(t.valid) for t in tables]])
        padding = np.ones((1, POINTS))
        self.valid = np.concatenate([*[t.valid for t in tables], padding])
        self.test = np.concatenate([*[t.test for t in tables], padding])
        self.length = np.concatenate([*[t.length for t in tables], np.zeros(1, np.int64)])

    def draw(self, seed: int, count: int) -> tuple[np.ndarray, float]:
        """Places of ``count`` configurations of one task, and the target: functions of the seed."""
        rng = randomness.generator(seed, "recorded-curves")
        task = int(rng.integers(len(self.tables)))
        table = self.tables[task]
        picked = rng.choice(len(table.valid), count, replace=False)
        reach = np.array([], int)
        if table.target is not None:
            reach = np.flatnonzero(table.valid[:, -1] <= table.target)
            if len(reach) and table.valid[picked, -1].min() > table.target:
                # A target nobody can reach tells nobody apart: one that does is put among the others.
                picked[rng.integers(count)] = rng.choice(reach)
        if table.target is not None and len(reach):
            return self.first[task] + picked, table.target
        lowest, end = table.valid[picked, 0].min(), table.valid[picked, -1].min()
        return self.first[task] + picked, float(lowest - REACH * (lowest - end))


class RecordedCurves(Simulator[CurveOutcome, Allotment, CurveState]):
    """Looks up what configurations did when somebody trained them.

    Args:
        problem: `CurveBudget`.
        scenario: to draw episodes from.
        num_envs: environments in the batch.

    Raises:
        AllocgymError: no task of a name, more configurations than rows; the public data is not here.
    """

    spends_all: ClassVar[bool] = False
    scenarios: ClassVar[Mapping[str, CurveScenario]] = SCENARIOS

    def __init__(self, problem: CurveBudget, scenario: CurveScenario, num_envs: int = 1) -> None:
        if scenario.configurations > problem.n_max:
            raise AllocgymError(
                f"n_max: the scenario has {scenario.configurations} configurations, "
                f"given {problem.n_max}"
            )
        every = {table.name: table for table in TABLES[scenario.curves]()}
        for name in scenario.tasks:
            if name not in every:
                raise unknown("tasks", name, every)
        self.scenario = scenario
        self.shelf = Shelf([every[name] for name in scenario.tasks or every])
        self._total = round(scenario.full * (POINTS - 1))
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend="replay",
            claimants=tuple(f"configuration-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="point of a curve",
            horizon=-(-self._total // scenario.grant),
            batch_size=num_envs,
            details={"scenario": dataclasses.asdict(scenario)},
        )
        super().__init__(spec, problem)
        self.problem: CurveBudget = problem

    @classmethod
    def suits(cls, scenario: CurveScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: more rows where the scenario has more configurations."""
        return {"n_max": scenario.configurations} if scenario.configurations > 16 else {}

    def _budget(self) -> np.ndarray:
        return self.state.instance.total

    def _fresh(self, seeds: np.ndarray) -> CurveState:
        batch, n, count = len(seeds), self.spec.n_max, self.scenario.configurations
        curve = np.full((batch, n), len(self.shelf.valid) - 1)
        target = np.empty(batch)
        for row, seed in enumerate(seeds):
            curve[row, :count], target[row] = self.shelf.draw(int(seed), count)
        total = np.full(batch, self._total)
        instance = CurveInstance(
            present=np.tile(np.arange(n) < count, (batch, 1)),
            limit=np.full(batch, POINTS - 1),
            total=total,
            target=target,
        )
        none = np.zeros((batch, n), np.int64)
        return CurveState(instance, curve, none, none > 0, total, none[:, 0], none[:, 0])

    def _step(self, state: CurveState, decision: Allotment) -> CurveState:
        units = decision.units
        if (units < 0).any() or (units > self.problem.room(self.outcome)).any():
            raise AllocgymError("units: more than the curves hold, or fewer than 0")
        spent = units.sum(1)
        return dataclasses.replace(
            state,
            used=state.used + units,
            closed=state.closed | decision.stop,
            left=state.left - spent,
            period=state.period + 1,
            spent=spent,
        )

    def _outcome(self, state: CurveState) -> CurveOutcome:
        inst, shelf = state.instance, self.shelf
        alive = (state.used <= shelf.length[state.curve]) | ~inst.present
        rest = room(inst, state.used, state.closed, alive).sum(1)
        grant = np.minimum(np.minimum(state.left, self.scenario.grant), rest)
        return CurveOutcome(
            spent=state.spent,
            seconds=state.spent.astype(float),
            ready=inst.present,
            done=grant == 0,
            scores=shelf.valid[state.curve, state.used],
            heldout=shelf.test[state.curve, state.used],
            alive=alive,
            closed=state.closed,
            used=state.used,
            grant=grant,
            left=state.left,
            period=state.period,
            instance=inst,
        )
