"""Packing as a back end: the exact evaluator."""

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
from allocgym.envs.packing.buffer import Buffers
from allocgym.envs.packing.kernel import look_ahead, place_many
from allocgym.envs.packing.problem import Packing, PackingOutcome, PackingState
from allocgym.simulators.core.simulator import Simulator
from allocgym.simulators.packing.instance import generated, known
from allocgym.simulators.packing.scenario import SCENARIOS, PackingScenario

ROWS = 64
"""Buffers up to which the problem's usual number of rows will do."""
PUBLIC_ROWS = 512
"""Rows that hold any of MiniMalloc's inputs."""


@dataclasses.dataclass(eq=False)
class PackingRun(Record):
    """All there is of a batch of running episodes.

    Attributes:
        instance: ``(batch,)`` objects, the `Buffers` that are packed.
        stack: ``(batch, n)`` buffers placed, lowest first.
        count: ``(batch,)`` buffers placed.
        spent: ``(batch,)`` buffers placed in the last step.
        shown: what agents see.
    """

    instance: np.ndarray
    stack: np.ndarray
    count: np.ndarray
    spent: np.ndarray
    shown: PackingState


class PackingSimulator(Simulator[PackingOutcome, Choice, PackingRun]):
    """Places buffers.

    Args:
        problem: `Packing`.
        scenario: instances to draw from.
        num_envs: environments in the batch.
    """

    scenarios: ClassVar[Mapping[str, PackingScenario]] = SCENARIOS

    def __init__(self, problem: Packing, scenario: PackingScenario, num_envs: int = 1) -> None:
        self.scenario = scenario
        n = problem.n_max
        self.buffers = max(n * 3 // 4, 1) if scenario.buffers is None else scenario.buffers
        if self.buffers > n:
            raise AllocgymError(f"buffers: 1 to n_max={n} expected, given {scenario.buffers}")
        self._bank = known(scenario)
        most = max((len(b.size) for b in self._bank), default=self.buffers)
        if most > n:
            raise AllocgymError(f"n_max: {most} buffers, {n} rows; raise n_max")
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend="twin",
            claimants=tuple(f"buffer-{i}" for i in range(n)),
            n_max=n,
            unit="decision",
            horizon=most,
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
        )
        super().__init__(spec, problem)

    @classmethod
    def suits(cls, scenario: PackingScenario) -> Mapping[str, int]:
        """See `Backend.suits`: more rows where an instance that is not generated has more buffers."""
        if scenario.source == "minimalloc":
            return {"n_max": PUBLIC_ROWS}
        most = max((len(b.size) for b in known(scenario)), default=0)
        return {"n_max": most} if most > ROWS else {}

    def _budget(self) -> np.ndarray:
        total: np.ndarray = self.state.shown.present.sum(1)
        return total.astype(np.int64)

    def _draw(self, seed: int) -> Buffers:
        if not self._bank:
            return generated(self.scenario.source, seed, self.buffers)
        drawn = randomness.uniform(randomness.stream(np.array([seed]), "input"), 0)[0, 0]
        return self._bank[int(drawn * len(self._bank))]

    def _fresh(self, seeds: np.ndarray) -> PackingRun:
        batch, n = len(seeds), self.spec.n_max
        instance = np.empty(batch, object)
        wide = {
            name: np.zeros((batch, n), np.int64)
            for name in ("lower", "upper", "size", "contention", "top", "near")
        }
        present = np.zeros((batch, n), bool)
        for row, seed in enumerate(seeds.tolist()):
            b = instance[row] = self._draw(seed)
            for name in ("lower", "upper", "size", "contention"):
                wide[name][row, : len(b.size)] = getattr(b, name)
            present[row, : len(b.size)] = True
        shown = PackingState(
            **wide,
            offset=np.full((batch, n), -1, np.int64),
            present=present,
            capacity=np.array([b.capacity for b in instance], np.int64),
            peak=np.array([b.peak for b in instance], np.int64),
            height=np.zeros(batch, np.int64),
        )
        none = np.zeros(batch, np.int64)
        return self._seen(PackingRun(instance, np.zeros((batch, n), np.int64), none, none, shown))

    def _step(self, state: PackingRun, decision: Choice) -> PackingRun:
        shown, stack, count = state.shown.map(np.copy), state.stack.copy(), state.count.copy()
        on = (count < shown.present.sum(1)) & (decision.pick >= 0)
        place_many(
            decision.pick, on, shown.lower, shown.upper, shown.size, shown.offset, stack, count
        )
        return self._seen(PackingRun(state.instance, stack, count, on.astype(np.int64), shown))

    def _seen(self, run: PackingRun) -> PackingRun:
        """Fill in what follows from where the buffers are, in arrays nobody else holds yet."""
        s = run.shown
        look_ahead(
            s.lower, s.upper, s.size, s.offset, run.stack, run.count, s.present, s.top, s.near
        )
        s.height = np.where(s.offset >= 0, s.offset + s.size, 0).max(1)
        return run

    def _outcome(self, state: PackingRun) -> PackingOutcome:
        return PackingOutcome(
            spent=state.spent,
            seconds=np.zeros(len(state.count)),
            ready=state.shown.present,
            done=state.count >= state.shown.present.sum(1),
            state=state.shown,
            step=state.count,
        )
