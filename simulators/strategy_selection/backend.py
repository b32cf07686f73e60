"""Strategy selection as a back end: the exact evaluator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.contracts import Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record
from allocgym.envs.strategy_selection.instance import StrategyProblem
from allocgym.envs.strategy_selection.problem import SelectionOutcome, StrategySelection
from allocgym.envs.strategy_selection.walk import COLUMNS, Walk
from allocgym.simulators.core.simulator import Simulator
from allocgym.simulators.strategy_selection.network import LAYOUTS, generated, public
from allocgym.simulators.strategy_selection.scenario import INSTANCES, SCENARIOS, SelectionScenario

LARGEST = 178
"""Strategies of a node of the contest's instance V; the others have no more than the usual rows."""


@dataclasses.dataclass(eq=False)
class SelectionState(Record):
    """All there is of a batch of running episodes.

    Attributes:
        walk: ``(batch,)`` objects, each a `Walk` through an instance; they change in place.
        spent: ``(batch,)`` nodes decided in the last step.
    """

    walk: np.ndarray
    spent: np.ndarray


class SelectionSimulator(Simulator[SelectionOutcome, Choice, SelectionState]):
    """Walks through instances.

    Args:
        problem: `StrategySelection`.
        scenario: networks to draw from.
        num_envs: environments in the batch.
    """

    scenarios: ClassVar[Mapping[str, SelectionScenario]] = SCENARIOS

    def __init__(
        self, problem: StrategySelection, scenario: SelectionScenario, num_envs: int = 1
    ) -> None:
        self.scenario, self._bank = scenario, []
        if scenario.contest:
            fitting = INSTANCES if problem.n_max >= LARGEST else INSTANCES[:2]
            chosen = fitting if scenario.instance is None else (scenario.instance,)
            self._bank = [public(name) for name in chosen]
        most = max((len(c) for p in self._bank for c in p.costs), default=3 * LAYOUTS)
        if most > problem.n_max:
            raise AllocgymError(f"n_max: {most} strategies, {problem.n_max} rows; raise n_max")
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend="twin",
            claimants=tuple(f"strategy-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=max((len(p.costs) for p in self._bank), default=scenario.nodes),
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={"instance": scenario.instance},
        )
        super().__init__(spec, problem)

    @classmethod
    def suits(cls, scenario: SelectionScenario) -> Mapping[str, int]:
        """See `Backend.suits`: more rows for the instance whose nodes have most strategies."""
        return {"n_max": LARGEST} if scenario.instance == INSTANCES[-1] else {}

    def _budget(self) -> np.ndarray:
        return np.array([len(w.choice) for w in self.state.walk], np.int64)

    def _draw(self, seed: int) -> StrategyProblem:
        if not self._bank:
            return generated(seed, self.scenario.nodes, self.scenario.level)
        drawn = randomness.uniform(randomness.stream(np.array([seed]), "instance"), 0)[0, 0]
        return self._bank[int(drawn * len(self._bank))]

    def _fresh(self, seeds: np.ndarray) -> SelectionState:
        walk = np.empty(len(seeds), object)
        walk[:] = [Walk(self._draw(seed)) for seed in seeds.tolist()]
        return SelectionState(walk, np.zeros(len(seeds), np.int64))

    def _step(self, state: SelectionState, decision: Choice) -> SelectionState:
        on = np.array([not w.done for w in state.walk]) & (decision.pick >= 0)
        for walk, pick in zip(state.walk[on], decision.pick[on].tolist(), strict=True):
            walk.play(pick)
            if walk.done:
                walk.verify()
        return dataclasses.replace(state, spent=on.astype(np.int64))

    def _outcome(self, state: SelectionState) -> SelectionOutcome:
        batch, n = len(state.spent), self.spec.n_max
        table = np.zeros((batch, n, len(COLUMNS)))
        legal, present = np.zeros((batch, n), bool), np.zeros((batch, n), bool)
        for row, w in enumerate(state.walk):
            if w.done:
                present[row, 0] = legal[row, 0] = True
                continue
            found, fine = w.table()
            table[row, : len(found)] = found
            legal[row, : len(found)] = fine
            present[row, : len(found)] = True
        return SelectionOutcome(
            spent=state.spent,
            seconds=np.zeros(batch),
            ready=present.copy(),
            done=np.array([w.done for w in state.walk]),
            table=table,
            legal=legal,
            present=present,
            step=np.array([w.step for w in state.walk]),
            total=np.array([len(w.choice) for w in state.walk]),
            cost=np.array([w.cost for w in state.walk]),
            broken=np.array([w.broken for w in state.walk]),
        )
