"""The mapping game as a back end: SimPy prices the reference, compiled rules the batched twin."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.contracts import Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.board import Board, MappingInstance
from allocgym.envs.memory_mapping.problem import MappingOutcome, MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program
from allocgym.simulators.core.simulator import Simulator, check_engine
from allocgym.simulators.memory_mapping import machine
from allocgym.simulators.memory_mapping.program import instances
from allocgym.simulators.memory_mapping.scenario import SCENARIOS, MappingScenario

Pairs = tuple[tuple[Program, Device], ...]
ROWS = 256
"""Tensors up to which the order game's usual number of rows will do."""


@dataclasses.dataclass(eq=False)
class MappingState(Record):
    """All there is of a batch of running games.

    Attributes:
        chosen: ``(batch,)`` index into `MappingSimulator.pairs`.
        step: ``(batch,)`` choices made.
        total: ``(batch,)`` choices to make.
        spent: ``(batch,)`` choices made in the last step.
        instance: programs and devices.
        board: state of the games.
    """

    chosen: np.ndarray
    step: np.ndarray
    total: np.ndarray
    spent: np.ndarray
    instance: MappingInstance
    board: Board


@functools.lru_cache(maxsize=16)
def _bundled(scenario: MappingScenario) -> tuple[Pairs, MappingInstance]:
    return _bank(scenario)


def _bank(scenario: MappingScenario) -> tuple[Pairs, MappingInstance]:
    """The programs of a scenario, and these in arrays as wide as the largest."""
    pairs = instances(scenario)
    programs, devices = zip(*pairs, strict=True)
    shape = (
        max(len(p.ops) for p in programs),
        max(len(p.tensors) for p in programs),
        max(len(p.segments) for p in programs),
    )
    return pairs, boards.pack(programs, devices, shape)


class MappingSimulator(Simulator[MappingOutcome, Choice, MappingState]):
    """Plays the rules on bundled or recorded programs.

    Args:
        problem: `MemoryMapping`.
        scenario: programs and machines to draw from.
        num_envs: environments in the batch.
        engine: ``"simpy"`` prices each board event by event; ``"twin"`` by the compiled rules.
    """

    scenarios: ClassVar[Mapping[str, MappingScenario]] = SCENARIOS

    def __init__(
        self,
        problem: MemoryMapping,
        scenario: MappingScenario,
        num_envs: int = 1,
        engine: str = "twin",
    ) -> None:
        check_engine(engine)
        self.engine = engine
        self.scenario = scenario
        # A recorded program is read again each time: its file may have changed.
        kept = _bundled if scenario.trace is None else _bank
        self.pairs, self._all = kept(scenario)
        if problem.order and self._all.head.shape[1] > problem.n_max:
            raise AllocgymError(
                f"n_max: {self._all.head.shape[1]} tensors, {problem.n_max} rows; raise n_max"
            )
        self.order = problem.order
        total = self._all.tensors if self.order else self._all.count
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend=engine,
            claimants=tuple(f"row-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=int(total.max()),
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={"order": problem.order},
        )
        super().__init__(spec, problem)

    @classmethod
    def choose(cls, scenario: Any, changes: Mapping[str, Any]) -> MappingScenario:
        """See `Backend.choose`; a name that ends in ``.json`` is a recorded program."""
        if isinstance(scenario, str) and scenario.endswith(".json"):
            scenario = dataclasses.replace(SCENARIOS["trace"], name=scenario, trace=scenario)
        made: MappingScenario = super().choose(scenario, changes)
        return made

    @classmethod
    def suits(cls, scenario: MappingScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: more rows in the order game where a program has more tensors."""
        most = max(len(program.tensors) for program, _ in instances(scenario))
        return {"tensors": most} if most > ROWS else {}

    def _budget(self) -> np.ndarray:
        return self.state.total

    def _fresh(self, seeds: np.ndarray) -> MappingState:
        drawn = randomness.uniform(randomness.stream(seeds, "program"), 0)[0]
        chosen = (drawn * len(self.pairs)).astype(np.int64)
        inst = self._all.rows(chosen)
        none = np.zeros(len(seeds), np.int64)
        return MappingState(
            chosen=chosen,
            step=none,
            total=(inst.tensors if self.order else inst.count).astype(np.int64),
            spent=none,
            instance=inst,
            board=boards.start(inst),
        )

    def _step(self, state: MappingState, decision: Choice) -> MappingState:
        inst, board = state.instance, state.board.map(np.copy)
        on = (state.step < state.total) & (decision.pick >= 0)
        pick = np.maximum(decision.pick, 0)
        if self.order:
            boards.place(inst, board, pick, on)
        else:
            at = np.minimum(state.step, inst.tensor.shape[1] - 1)
            boards.play(inst, board, at, pick, on)
        if self.engine == "simpy":
            rows = range(len(state.step))
            board.seconds = np.array([machine.run_board(inst, board, row) for row in rows])
        return dataclasses.replace(
            state, board=board, step=state.step + on, spent=on.astype(np.int64)
        )

    def _outcome(self, state: MappingState) -> MappingOutcome:
        done = state.step >= state.total
        return MappingOutcome(
            spent=state.spent,
            seconds=np.where(done & (state.spent > 0), state.board.seconds, 0.0),
            ready=np.ones((len(done), self.spec.n_max), bool),
            done=done,
            instance=state.instance,
            board=state.board,
            step=state.step,
        )
