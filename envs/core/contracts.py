"""Problem, Backend, Decision, Outcome: what every problem and every back end agree on.

A `Problem` says what is being decided (pure functions, no clock, no I/O). A `Backend` says what
happens when the decision is spent. An agent decides. Everything is batched; a scalar environment
is a batch of one.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core.errors import AllocgymError, OutOfBudgetError
from allocgym.envs.core.ledger import Ledger


@dataclasses.dataclass(eq=False)
class Record:
    """A struct of arrays with a leading batch axis.

    Records are equal when all their arrays are (declare subclasses with ``eq=False``).

    Fields that are records themselves share the batch. Records travel to the journal as JSON:
    float64 survives that bit for bit.
    """

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return all(
            a == b if isinstance(a, Record) else bool(np.array_equal(a, b)) for a, b in pairs
        )

    def where(self, mask: np.ndarray, other: Self) -> Self:
        """Take the rows of ``other`` where ``mask`` is true, ours elsewhere."""

        def pick(ours: Any, theirs: Any) -> Any:
            if isinstance(ours, Record):
                return ours.where(mask, theirs)
            if not isinstance(ours, np.ndarray):
                return theirs
            shaped = mask.reshape(mask.shape + (1,) * (ours.ndim - 1))
            return np.where(shaped, theirs, ours)

        names = [f.name for f in dataclasses.fields(self)]
        return type(self)(**{k: pick(getattr(self, k), getattr(other, k)) for k in names})

    def rows(self, index: Any) -> Self:
        """Select rows (an integer array, a slice or a mask); the batch axis stays."""

        def pick(value: Any) -> Any:
            return value.rows(index) if isinstance(value, Record) else value[index]

        return type(self)(**{f.name: pick(getattr(self, f.name)) for f in dataclasses.fields(self)})

    def map(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function to every array (to tensors, a copy)."""

        def apply(value: Any) -> Any:
            return value.map(function) if isinstance(value, Record) else function(value)

        return type(self)(
            **{f.name: apply(getattr(self, f.name)) for f in dataclasses.fields(self)}
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers, with the dtype of each array."""

        def plain(value: Any) -> Any:
            if isinstance(value, Record):
                return value.to_json()
            array = np.asarray(value)
            return {"dtype": array.dtype.str, "data": array.tolist()}

        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a record from `to_json`, bit for bit."""
        kinds = {f.name: f.metadata.get("record") for f in dataclasses.fields(cls)}
        out: dict[str, Any] = {}
        for name, value in data.items():
            kind = kinds.get(name)
            if kind is not None:
                out[name] = kind.from_json(value)
            else:
                out[name] = np.array(value["data"], dtype=np.dtype(value["dtype"]))
        return cls(**out)


def nested(kind: type[Record]) -> Any:
    """Declare a dataclass field that is itself a record."""
    return dataclasses.field(metadata={"record": kind})


@dataclasses.dataclass(eq=False)
class Decision(Record):
    """What an agent decides for one period. Subclassed per problem."""

    @property
    def fractions(self) -> np.ndarray | None:
        """``(batch, n)`` shares of the period's budget, or None where that is not what is decided."""
        return None


@dataclasses.dataclass(eq=False)
class Shares(Decision):
    """A split of one period's budget.

    Attributes:
        units: ``(batch, n)`` int64 whole units; each row sums to the period's budget exactly.
    """

    units: np.ndarray

    @property
    def fractions(self) -> np.ndarray:
        """``(batch, n)`` float64 shares, summing to 1."""
        return self.units / self.units.sum(1, keepdims=True)


@dataclasses.dataclass(eq=False)
class Outcome(Record):
    """What came back from the last period. Subclassed per problem, the same from every back end.

    Attributes:
        spent: ``(batch,)`` int64 budget units the last decision used (0 right after a reset).
        seconds: ``(batch,)`` float64 seconds charged for the last period.
        ready: ``(batch, n)`` bool, claimants that report now (all, where members move in step).
        valid: ``(batch,)`` bool, the measurements of this outcome can be trusted.
        failure: ``(batch,)`` int64, failures survived during the period.
        done: ``(batch,)`` bool, the episode's budget is spent.
    """

    spent: np.ndarray
    seconds: np.ndarray
    ready: np.ndarray
    valid: np.ndarray
    failure: np.ndarray
    done: np.ndarray


O = TypeVar("O", bound=Outcome)
M = TypeVar("M", bound=Record)
D = TypeVar("D", bound=Decision)


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a back end offers, fixed for its life.

    Attributes:
        problem: id of the problem, such as ``"data-mixing"``.
        scenario: name of the scenario.
        backend: name of the back end.
        claimants: names of the claimants, or ``claimant-i`` where they vary.
        n_max: rows in every array; claimants beyond those present are padding.
        unit: what one budget unit is, such as ``"sequence of 128 tokens"``.
        horizon: the largest number of periods in an episode.
        batch_size: environments in the batch.
        clock: ``"charged"`` (deterministic) or ``"wall"``.
        capabilities: what this back end can do beyond the contract, such as ``"state"``,
            ``"restart"``, ``"oracle"``.
        details: anything else worth recording, JSON-serialisable.
    """

    problem: str
    scenario: str
    backend: str
    claimants: tuple[str, ...]
    n_max: int
    unit: str
    horizon: int
    batch_size: int
    clock: str = "charged"
    capabilities: frozenset[str] = frozenset()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Problem(ABC, Generic[O, M, D]):
    """What is being decided. Pure functions over arrays with a leading batch axis.

    Attributes:
        id: lower case with hyphens, such as ``"data-mixing"``.
        outcome_type, decision_type: records of this problem.
        traces: fields of the outcome, ``(batch, n)`` or ``(batch,)`` each, that a report draws over
            time, with the label of their axis (name and unit).
        n_max: rows of claimants.

    A memory has a field ``objective``, ``(batch,)``: the score so far, in the problem's unit.
    """

    id: ClassVar[str]
    outcome_type: ClassVar[type[Outcome]]
    decision_type: ClassVar[type[Decision]]
    traces: ClassVar[Mapping[str, str]] = {}
    n_max: int
    observation_space: spaces.Space
    action_space: spaces.Space

    @abstractmethod
    def begin(self, outcome: O) -> M:
        """Return the memory of an episode that starts with ``outcome``."""

    @abstractmethod
    def update(self, memory: M, outcome: O) -> M:
        """Return the memory after ``outcome``; the size is fixed."""

    @abstractmethod
    def encode(self, memory: M) -> dict[str, np.ndarray]:
        """Return the observation, ``(batch, ...)`` for each key of the observation space."""

    @abstractmethod
    def decode(self, action: np.ndarray, memory: M) -> D:
        """Turn an action into a decision.

        Raises:
            AllocgymError: NaN, infinities, wrong shape or dtype; nothing is repaired silently.
        """

    @abstractmethod
    def action_of(self, decision: D, memory: M) -> np.ndarray:
        """Return an action that `decode` turns into ``decision``."""

    @abstractmethod
    def cost(self, decision: D) -> np.ndarray:
        """Return ``(batch,)`` int64 budget units the decision uses."""

    @abstractmethod
    def reward(self, before: M, after: M) -> dict[str, np.ndarray]:
        """Return the named reward terms of one period, ``(batch,)`` each; the reward is their sum."""

    @abstractmethod
    def check(self, decision: D, memory: M) -> None:
        """Raise `AllocgymError` where a decision made elsewhere breaks the problem's rules."""

    def tabulate(self, decision: D, names: Sequence[str]) -> dict[str, Any]:
        """Cells of a report's row that say what was decided (environment 0), by column."""
        if isinstance(decision, Shares):
            return {f"units {n}": int(u) for n, u in zip(names, decision.units[0], strict=False)}
        return {}

    def check_action(self, action: np.ndarray, batch: int) -> np.ndarray:
        """Validate the shape, dtype and finiteness of a batch of actions (for ``decode``)."""
        space = self.action_space
        array = np.asarray(action)
        if array.shape != (batch, *(space.shape or ())):
            raise AllocgymError(
                f"action: shape {array.shape} given, {(batch, *(space.shape or ()))} expected"
            )
        if isinstance(space, spaces.Box):
            if not np.issubdtype(array.dtype, np.floating):
                raise AllocgymError(f"action: dtype {array.dtype} given, a float dtype expected")
            # One pass tells almost always; the second one, where the sum of squares overflowed.
            if not np.isfinite(np.vdot(array, array)) and not np.isfinite(array).all():
                raise AllocgymError("action: NaN or infinity given, finite numbers expected")
        elif not np.issubdtype(array.dtype, np.integer):
            raise AllocgymError(f"action: dtype {array.dtype} given, an integer dtype expected")
        return array


class Backend(ABC, Generic[O, D]):
    """What happens when a decision is spent: a simulator, a real run, or a replay.

    The public verbs keep the books (validation, ledger, the order of calls); a back end fills in
    the private hooks.

    Attributes:
        changing: names of the attributes that an episode changes, for back ends with the capability
            ``"state"``.
    """

    spec: Spec
    changing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: Spec, problem: Problem) -> None:
        self.spec = spec
        self.problem = problem
        self.ledger = Ledger(spec.batch_size)
        self._outcome: O | None = None

    @property
    def outcome(self) -> O:
        """The latest outcome.

        Raises:
            AllocgymError: before the first ``reset``.
        """
        if self._outcome is None:
            raise AllocgymError("backend: call reset() first")
        return self._outcome

    def reset(self, seeds: np.ndarray, where: np.ndarray | None = None) -> O:
        """Start episodes.

        Args:
            seeds: ``(batch,)`` integers >= 0, one per environment.
            where: ``(batch,)`` bool, which environments start anew; the others go on untouched.
                All of them by default (and on the first call).
        """
        seeds = np.asarray(seeds)
        batch = self.spec.batch_size
        if seeds.shape != (batch,) or not np.issubdtype(seeds.dtype, np.integer):
            raise AllocgymError(f"seeds: {batch} integers expected, given {seeds!r}")
        if (seeds < 0).any():
            raise AllocgymError(f"seeds: integers >= 0 expected, given {int(seeds.min())}")
        mask = np.ones(batch, bool) if where is None or self._outcome is None else where
        if not mask.any():
            return self.outcome
        self._outcome = self._reset(seeds, mask)
        self.ledger.grant(self._budget(), mask)
        return self._outcome

    def spend(self, decision: D) -> O:
        """Spend one period's decision and return what came back.

        Raises:
            OutOfBudgetError: the decision costs more than what is left.
        """
        if self._outcome is None:
            raise AllocgymError("backend: call reset() before spend()")
        cost = self.problem.cost(decision)
        if cost.shape != (self.spec.batch_size,):
            raise AllocgymError(
                f"decision: {self.spec.batch_size} rows expected, given {len(cost)}"
            )
        if (cost > self.ledger.left).any():
            row = int(np.argmax(cost > self.ledger.left))
            raise OutOfBudgetError(
                f"decision: {cost[row]} units asked for in environment {row}, "
                f"{self.ledger.left[row]} left"
            )
        self._outcome = self._spend(decision)
        self.ledger.charge(self._outcome.spent)
        return self._outcome

    def close(self) -> None:
        """Release what the back end holds. Idempotent."""

    def get_state(self) -> dict[str, Any]:
        """Everything an episode changes, copied (back ends with the capability ``"state"``)."""
        if "state" not in self.spec.capabilities:
            raise AllocgymError(f"{self.spec.backend}: the state of this back end cannot be kept")
        kept = {name: copy.deepcopy(getattr(self, name)) for name in self.changing}
        return kept | {"outcome": self.outcome.map(np.copy), "ledger": self.ledger.to_json()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of the same episodes."""
        for name in self.changing:
            setattr(self, name, copy.deepcopy(state[name]))
        self._outcome = state["outcome"].map(np.copy)
        self.ledger.load(state["ledger"])

    def checkpoint(self, path: Path) -> None:
        """Write the whole state atomically (back ends with the capability ``"restart"``)."""
        raise AllocgymError(f"{self.spec.backend}: this back end cannot be checkpointed")

    def restore(self, path: Path) -> None:
        """Read a state back; the next ``spend`` goes on as if nothing had happened."""
        raise AllocgymError(f"{self.spec.backend}: this back end cannot be restored")

    @abstractmethod
    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> O: ...

    @abstractmethod
    def _spend(self, decision: D) -> O: ...

    @abstractmethod
    def _budget(self) -> np.ndarray:
        """Return ``(batch,)`` int64: the budget of each environment's current episode."""
