"""The mapping game as a back end: SimPy prices the reference, NumPy the batched twin."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.problem import Choice, MappingOutcome, MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program, from_trace
from allocgym.simulators.memory_mapping import machine
from allocgym.simulators.memory_mapping.programs import BAND, TEST, TRAIN, Entry, device


@dataclasses.dataclass(frozen=True)
class Scenario:
    """Programs and machines that episodes are drawn from.

    Attributes:
        entries: bundled programs.
        fractions: capacities over a program's peak.
        compute: FLOP/s.
        trace: a recorded program instead of the bundled ones.
    """

    entries: tuple[Entry, ...] = TRAIN
    fractions: tuple[float, ...] = BAND
    compute: float = 138e12
    trace: str | None = None


SCENARIOS: dict[str, Scenario] = {
    "train": Scenario(),
    "test": Scenario(TEST),
    "compute-bound": Scenario(TEST, BAND, 138e7),
    "ample": Scenario(TEST, (64.0,), 138e18),
    "trace": Scenario(()),
}
"""``compute-bound`` (nothing can be saved) and ``ample`` (everything fits, no bandwidth is idle, so
that every rule keeps what it can) are the controls: no rule can win there."""


def make_scenario(name: str, **overrides: Any) -> Scenario:
    """Return a scenario, fields replaced; a name that ends in ``.json`` is a recorded program.

    Raises:
        AllocgymError: no such scenario or field.
    """
    if name.endswith(".json"):
        name, overrides = "trace", {"trace": name, **overrides}
    if name not in SCENARIOS:
        raise unknown("scenario", name, SCENARIOS)
    made = replaced(SCENARIOS[name], overrides, f"scenario {name!r}")
    if not made.fractions or min(made.fractions) <= 0:
        raise AllocgymError(f"fractions: numbers > 0 expected, given {made.fractions}")
    if not made.entries and made.trace is None:
        raise AllocgymError("trace: the file of a recorded program expected")
    return made


def instances(scenario: Scenario) -> list[tuple[Program, Device]]:
    """Every program of a scenario on every machine of it."""
    if scenario.trace is not None:
        try:
            data = json.loads(Path(scenario.trace).read_text())
        except (OSError, ValueError) as error:
            raise AllocgymError(f"trace: {scenario.trace} cannot be read ({error})") from error
        programs = [from_trace(data, Path(scenario.trace).stem)]
    else:
        programs = [e.program for e in scenario.entries]
    return [(p, device(p, f, scenario.compute)) for p in programs for f in scenario.fractions]


@functools.lru_cache(maxsize=16)
def _bank(scenario: Scenario) -> tuple[list[tuple[Program, Device]], boards.MappingInstance]:
    found = instances(scenario)
    return found, bank(found)


def bank(found: Sequence[tuple[Program, Device]]) -> boards.MappingInstance:
    """Pack programs of different sizes into arrays as wide as the largest."""
    shape = (
        max(len(p.ops) for p, _ in found),
        max(len(p.tensors) for p, _ in found),
        max(len(p.segments) for p, _ in found),
    )
    return boards.pack([p for p, _ in found], [d for _, d in found], shape)


class MappingSimulator(Backend[MappingOutcome, Choice]):
    """Plays the rules on bundled or recorded programs.

    Args:
        problem: `MemoryMapping`.
        engine: ``"simpy"`` prices each board event by event; ``"twin"`` for the whole batch at once.
        scenario: name in `SCENARIOS`.
        num_envs: environments in the batch.
        overrides: fields of the scenario.
    """

    changing = ("chosen", "_total")

    def __init__(
        self,
        problem: MemoryMapping,
        engine: str = "twin",
        scenario: str = "train",
        num_envs: int = 1,
        **overrides: Any,
    ) -> None:
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        self.engine = engine
        self.scenario = make_scenario(scenario, **overrides)
        self.pairs, self._all = _bank(self.scenario)
        if problem.order and self._all.head.shape[1] > problem.n_max:
            raise AllocgymError(
                f"n_max: {self._all.head.shape[1]} tensors, {problem.n_max} rows; raise n_max"
            )
        total = self._all.tensors if problem.order else self._all.count
        spec = Spec(
            problem=problem.id,
            scenario=scenario,
            backend=engine,
            claimants=tuple(f"row-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=int(total.max()),
            batch_size=num_envs,
            capabilities=frozenset({"state", "oracle"}),
            details={"order": problem.order},
        )
        super().__init__(spec, problem)
        self.order = problem.order
        self.chosen = np.zeros(num_envs, np.int64)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> MappingOutcome:
        fresh = randomness.uniform(randomness.stream(seeds, "program"), 0)[0]
        fresh = (fresh * len(self.pairs)).astype(np.int64)
        self.chosen = np.where(where, fresh, self.chosen)
        inst = self._all.rows(self.chosen)
        board, step = boards.start(inst), np.zeros(len(seeds), np.int64)
        if self._outcome is not None and not where.all():
            board = self._outcome.board.where(where, board)
            step = np.where(where, 0, self._outcome.step)
        self._total = inst.tensors if self.order else inst.count
        return self._tell(inst, board, step, np.zeros(len(seeds), np.int64))

    def _spend(self, decision: Choice) -> MappingOutcome:
        old = self.outcome
        inst, step = old.instance, old.step
        board = old.board.map(np.copy)
        on = (step < self._total) & (decision.pick >= 0)
        if self.order:
            boards.place(inst, board, decision.pick, on)
        else:
            at = np.minimum(step, inst.tensor.shape[1] - 1)
            boards.apply(inst, board, at, decision.pick, on)
        if self.engine == "simpy":
            board.seconds = np.array(
                [machine.run_board(inst, board, row) for row in range(len(step))]
            )
        return self._tell(inst, board, step + on, on.astype(np.int64))

    def _tell(
        self, inst: boards.MappingInstance, board: boards.Board, step: np.ndarray, spent: np.ndarray
    ) -> MappingOutcome:
        batch = len(step)
        done = step >= self._total
        return MappingOutcome(
            spent=spent,
            seconds=np.where(done & (spent > 0), board.seconds, 0.0),
            ready=np.ones((batch, self.spec.n_max), bool),
            valid=np.ones(batch, bool),
            failure=np.zeros(batch, np.int64),
            done=done,
            instance=inst,
            board=board,
            step=step,
        )

    def _budget(self) -> np.ndarray:
        return self._total.astype(np.int64)


def simpy_backend(problem: MemoryMapping, **arguments: Any) -> MappingSimulator:
    """The reference."""
    return MappingSimulator(problem, "simpy", **arguments)


def twin_backend(problem: MemoryMapping, **arguments: Any) -> MappingSimulator:
    """The batched twin."""
    return MappingSimulator(problem, "twin", **arguments)
