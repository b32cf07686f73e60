"""Problem, Backend, Decision, Outcome: what every problem and every back end agree on.

A `Problem` says what is being decided (pure functions, no clock, no I/O). A `Backend` says what
happens when the decision is spent. An agent decides. Everything is batched; a scalar environment
is a batch of one.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core.errors import AllocgymError, OutOfBudgetError
from allocgym.envs.core.ledger import Ledger
from allocgym.envs.core.record import Record
from allocgym.envs.core.scenario import choose


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


@dataclasses.dataclass(eq=False, kw_only=True)
class Outcome(Record):
    """What came back from the last period. Subclassed per problem, the same from every back end.

    Attributes:
        spent: ``(batch,)`` int64 budget units the last decision used (0 right after a reset).
        seconds: ``(batch,)`` float64 seconds charged for the last period.
        ready: ``(batch, n)`` bool, claimants that report now (all, where members move in step).
        done: ``(batch,)`` bool, the episode's budget is spent.
        valid: ``(batch,)`` bool, the measurements of this outcome can be trusted (default: all).
        failure: ``(batch,)`` int64, failures survived during the period (default: none).
        wasted: ``(batch,)`` int64 budget units consumed without effect, such as work that was undone
            (default: none).
    """

    spent: np.ndarray
    seconds: np.ndarray
    ready: np.ndarray
    done: np.ndarray
    valid: np.ndarray = None  # type: ignore[assignment]
    failure: np.ndarray = None  # type: ignore[assignment]
    wasted: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.valid is None:
            self.valid = self.spent == self.spent
        if self.failure is None:
            self.failure = self.spent * 0
        if self.wasted is None:
            self.wasted = self.spent * 0


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

    A memory has a field ``objective``, ``(batch,)``: the score so far, in the problem's unit. Where the
    latest outcome is all there is to remember, a problem need not write `update`.

    Attributes:
        id: lower case with hyphens, such as ``"data-mixing"``.
        outcome_type, decision_type: records of this problem.
        features: names of what the observation holds; part of an agent file's fingerprint.
        traces: fields of the outcome, ``(batch, n)`` or ``(batch,)`` each, that a report draws over
            time, with the label of their axis (name and unit).
        higher_is_better: of the first of `scores`, by which agents are compared.
        n_max: rows of claimants.
        strict: an illegal action raises; otherwise it becomes a legal one by the rule the environment's
            page states.
    """

    id: ClassVar[str]
    outcome_type: ClassVar[type[Outcome]]
    decision_type: ClassVar[type[Decision]]
    features: Sequence[str] = ()
    traces: ClassVar[Mapping[str, str]] = {}
    higher_is_better: ClassVar[bool] = False
    n_max: int
    strict: bool = False
    observation_space: spaces.Space
    action_space: spaces.Space

    @abstractmethod
    def begin(self, outcome: O) -> M:
        """Return the memory of an episode that starts with ``outcome``."""

    def update(self, memory: M, outcome: O) -> M:
        """Return the memory after ``outcome``; the size is fixed. By default, the latest outcome's."""
        return self.begin(outcome)

    @abstractmethod
    def encode(self, memory: M) -> dict[str, np.ndarray]:
        """Return the observation, ``(batch, ...)`` for each key of the observation space.

        Arrays of their own: nobody who writes into them changes the memory.
        """

    @abstractmethod
    def decode(self, action: np.ndarray, memory: M) -> D:
        """Turn an action into a decision.

        Raises:
            AllocgymError: NaN, infinities, a wrong shape or dtype, a number that names no action; with
                ``strict``, an action that is not legal now.
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

    def legal(self, memory: M) -> np.ndarray | None:
        """``(batch, actions)`` bool, the discrete actions that are legal now; None where all are."""
        return None

    def round(self, shares: np.ndarray, memory: M) -> D:
        """Return the decision nearest to ``(batch, n)`` shares, for problems that decide shares.

        Raises:
            AllocgymError: this problem does not decide shares.
        """
        raise AllocgymError(f"{self.id}: decides no shares, so none can be rounded")

    def scores(self, memory: M) -> dict[str, np.ndarray]:
        """Figures of an episode so far by name (and unit), ``(batch,)`` each; agents are judged by
        the first.
        """  # noqa: D205
        return {"objective": memory.objective}  # type: ignore[attr-defined]

    def plain(self) -> Problem[O, M, D]:
        """The same claimants as agent files are made for: with the usual observation and action."""
        return self

    def tabulate(self, decision: D, names: Sequence[str]) -> dict[str, Any]:
        """Cells of a report's row that say what was decided (environment 0), by column."""
        if isinstance(decision, Shares):
            return {f"units {n}": int(u) for n, u in zip(names, decision.units[0], strict=False)}
        return {}

    def status(self, decision: D, outcome: O, names: Sequence[str]) -> str:
        """Describe one period of a deployment in a line (environment 0)."""
        return "  ".join(f"{k} {v}" for k, v in self.tabulate(decision, names).items())

    def check_action(self, action: np.ndarray, batch: int) -> np.ndarray:
        """Validate a batch of actions for `decode`; numbers outside a box are clipped to it.

        Raises:
            AllocgymError: a wrong shape or dtype, NaN or infinity, a number that names no action.
        """
        space = self.action_space
        array = np.asarray(action)
        if array.shape != (batch, *(space.shape or ())):
            raise AllocgymError(
                f"action: shape {array.shape} given, {(batch, *(space.shape or ()))} expected"
            )
        if isinstance(space, spaces.Box):
            if not np.issubdtype(array.dtype, np.floating):
                raise AllocgymError(f"action: dtype {array.dtype} given, a float dtype expected")
            if not np.isfinite(array).all():
                raise AllocgymError("action: NaN or infinity given, finite numbers expected")
            return np.clip(array, space.low, space.high)
        if not np.issubdtype(array.dtype, np.integer):
            raise AllocgymError(f"action: dtype {array.dtype} given, an integer dtype expected")
        count = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n  # type: ignore[attr-defined]
        if ((array < 0) | (array >= count)).any():
            raise AllocgymError(
                f"action: 0 to {int(np.max(count)) - 1} expected, given {array.tolist()}"
            )
        return array.astype(np.int64)


class Backend(ABC, Generic[O, D]):
    """What happens when a decision is spent: a simulator, a real run, or a replay.

    The public verbs keep the books (validation, ledger, the order of calls); a back end fills in
    the private hooks.

    Attributes:
        scenarios: what this back end can run, by name.
        batched: it holds any number of environments; else it runs one.
        needs: what it needs beside this package to run at all, such as a cluster; "" where nothing.
        measured: what it is built on is timed on this machine, so no two of them are alike.
        spends_all: an episode ends only when its whole budget is spent; False where there may be nobody
            left to spend it on.
        trial: arguments that make an episode a matter of seconds: a first try, and the contract tests.
    """

    spec: Spec
    scenarios: ClassVar[Mapping[str, Any]] = {}
    batched: ClassVar[bool] = True
    needs: ClassVar[str] = ""
    measured: ClassVar[bool] = False
    spends_all: ClassVar[bool] = True
    trial: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, spec: Spec, problem: Problem) -> None:
        self.spec = spec
        self.problem = problem
        self.ledger = Ledger(spec.batch_size)
        self._latest: O | None = None

    @classmethod
    def choose(cls, scenario: Any, changes: Mapping[str, Any]) -> Any:
        """Return a scenario by name (or as given) with fields replaced; see `scenario.choose`."""
        return choose(cls.scenarios, scenario, changes)

    @classmethod
    def suits(cls, scenario: Any) -> Mapping[str, Any]:
        """Arguments of the problem that fit a scenario, where its defaults do not."""
        return {}

    @property
    def outcome(self) -> O:
        """The latest outcome.

        Raises:
            AllocgymError: before the first ``reset``.
        """
        if self._latest is None:
            raise AllocgymError("backend: call reset() first")
        return self._latest

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
        mask = np.ones(batch, bool) if where is None or self._latest is None else where
        if not mask.any():
            return self.outcome
        self._latest = self._reset(seeds, mask)
        self.ledger.grant(self._budget(), mask)
        return self._latest

    def spend(self, decision: D) -> O:
        """Spend one period's decision and return what came back.

        Raises:
            AllocgymError: before ``reset``, another kind of decision or batch, negative units.
            OutOfBudgetError: the decision costs more than what is left.
        """
        if self._latest is None:
            raise AllocgymError("backend: call reset() before spend()")
        if not isinstance(decision, self.problem.decision_type):
            raise AllocgymError(
                f"decision: {self.problem.decision_type.__name__} expected, "
                f"given {type(decision).__name__}"
            )
        cost = self.problem.cost(decision)
        if cost.shape != (self.spec.batch_size,):
            raise AllocgymError(
                f"decision: {self.spec.batch_size} rows expected, given {len(cost)}"
            )
        if isinstance(decision, Shares) and decision.units.min() < 0:
            raise AllocgymError(f"units: at least 0 expected, given {decision.units.min()}")
        if (cost > self.ledger.left).any():
            row = int(np.argmax(cost > self.ledger.left))
            raise OutOfBudgetError(
                f"decision: {cost[row]} units asked for in environment {row}, "
                f"{self.ledger.left[row]} left"
            )
        self._latest = self._spend(decision)
        self.ledger.charge(self._latest.spent, self._latest.wasted)
        return self._latest

    def close(self) -> None:
        """Release what the back end holds. Idempotent."""

    def get_state(self) -> dict[str, Any]:
        """Everything an episode changes, copied (back ends with the capability ``"state"``)."""
        raise AllocgymError(f"{self.spec.backend}: the state of this back end cannot be kept")

    def set_state(self, state: dict[str, Any]) -> None:
        """Go back to a state of a back end built alike."""
        raise AllocgymError(f"{self.spec.backend}: the state of this back end cannot be kept")

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
