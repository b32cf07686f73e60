"""What both engines of radio slicing share: episodes, books, outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from allocgym.envs.core.contracts import Shares, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.records import SlicingOutcome
from allocgym.envs.prb_slicing.scenario import SCENARIOS, SlicingScenario
from allocgym.simulators.core.simulator import Simulator
from allocgym.simulators.prb_slicing.episodes import Episodes
from allocgym.simulators.prb_slicing.fluid import CELLS
from allocgym.simulators.prb_slicing.state import CellState, Histogram, Played

S = TypeVar("S", bound=CellState)


class SimulatedCell(Simulator[SlicingOutcome, Shares, S], Generic[S]):
    """A batch of cells; an engine fills in `begun` and `played`.

    Args:
        problem: radio slicing.
        scenario: to draw episodes from.
        num_envs: cells.
        histogram: keep ``histogram``, packets by delay, for quantiles.
    """

    scenarios: ClassVar[Mapping[str, SlicingScenario]] = SCENARIOS
    capabilities: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        num_envs: int = 1,
        histogram: bool = False,
    ) -> None:
        problem.check_scenario(scenario)
        self.scenario, self.keeps = scenario, histogram
        self.n, self.u, self.batch = problem.n_max, scenario.users, num_envs
        self.episodes = Episodes(scenario, self.n)
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend="simulated",
            claimants=scenario.claimants,
            n_max=problem.n_max,
            unit=f"group of {scenario.carrier.group} resource blocks",
            horizon=scenario.horizon,
            batch_size=num_envs,
            capabilities=self.capabilities,
            details={"scenario": dataclasses.asdict(scenario)},
        )
        super().__init__(spec, problem)

    @classmethod
    def suits(cls, scenario: SlicingScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: a row for each slice, the carrier's groups."""
        return scenario.suited

    @property
    def histogram(self) -> np.ndarray:
        """``(n, batch, CELLS)`` packets of the running episodes by delay (see `fluid.CELLS`)."""
        if self.state.histogram is None:
            raise AllocgymError("histogram: kept with histogram=True only")
        return self.state.histogram.counts.swapaxes(0, 1)

    def _budget(self) -> np.ndarray:
        return np.full(self.batch, self.scenario.carrier.groups * self.scenario.horizon)

    def begun(self, seeds: np.ndarray) -> CellState:
        """The state every engine begins with, one cell for each seed."""
        batch = len(seeds)
        workload = self.episodes.fresh(seeds)
        played = Played.empty(self.n, self.u, batch)
        return CellState(
            workload=workload,
            instance=self.episodes.instance(workload),
            played=dataclasses.replace(played, cqi=workload.cqi),
            units=np.repeat(self.scenario.first_split(self.n)[:, None], batch, 1),
            period=np.zeros(batch, np.int64),
            average=np.ones((self.n, self.u, batch)),
            histogram=Histogram(np.zeros((batch, self.n, CELLS))) if self.keeps else None,
        )

    def ended(self, state: S, units: np.ndarray, played: Played, **more: Any) -> S:
        """The state after a period in which slices had ``units``, ``(n, batch)``."""
        period = state.period + 1
        return dataclasses.replace(
            state,
            workload=self.episodes.moved(state.workload, period),
            played=self.reported(state, played),
            units=units,
            period=period,
            **more,
        )

    def reported(self, state: S, played: Played) -> Played:
        """What a period brought, with what was wanted in it and the channels it was played on."""
        waiting = played.backlog / np.maximum(self.episodes.carries(state.workload), 1e-9)
        most = self.scenario.carrier.blocks * self.scenario.period
        requested = played.granted + np.minimum(waiting, most)
        return dataclasses.replace(played, requested=requested, cqi=state.workload.cqi)

    def blocks(self, units: np.ndarray) -> np.ndarray:
        """``(n, batch)`` float64 blocks of a split, ``(batch, n)`` groups."""
        return np.ascontiguousarray(self.scenario.carrier.blocks_of(units).T.astype(float))

    def _outcome(self, state: S) -> SlicingOutcome:
        p, units = state.played, np.ascontiguousarray(state.units.T)
        begun = state.period > 0

        def rows(array: np.ndarray) -> np.ndarray:
            order = (2, 0, 1) if array.ndim == 3 else (1, 0)
            return np.ascontiguousarray(array.transpose(order), np.float64)

        return SlicingOutcome(
            spent=np.where(begun, units.sum(1), 0),
            seconds=np.where(begun, self.scenario.period / 1000, 0.0),
            ready=state.instance.present,
            done=state.period >= self.scenario.horizon,
            units=units,
            prbs=self.scenario.carrier.blocks_of(units),
            **{field.name: rows(getattr(p, field.name)) for field in dataclasses.fields(p)},
            period=state.period,
            instance=state.instance,
        )
