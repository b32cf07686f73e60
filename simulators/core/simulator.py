"""Simulators: a back end whose whole state is one record."""

from __future__ import annotations

import copy
import dataclasses
from abc import abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np

from allocgym.envs.core.contracts import Backend, Decision, Outcome, Problem, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.record import Record

O = TypeVar("O", bound=Outcome)
D = TypeVar("D", bound=Decision)
S = TypeVar("S", bound=Record)

ENGINES = ("simpy", "twin")
"""How a simulator may play its rules: event by event, or computed for the whole batch."""


def check_engine(engine: str) -> None:
    """Raise `AllocgymError` where a simulator has no engine of that name."""
    if engine not in ENGINES:
        raise unknown("engine", engine, ENGINES)


class Simulator(Backend[O, D], Generic[O, D, S]):
    """A back end that keeps nothing of an episode but one `Record`, its ``state``.

    Four hooks are filled in; partial resets, copies and `get_state` follow. States and outcomes are not
    changed once they exist: a step makes new arrays of what it changes, so outcomes may share arrays
    with the state they were read from. (A field that holds Python objects may change in place.)
    """

    def __init__(self, spec: Spec, problem: Problem) -> None:
        spec = dataclasses.replace(spec, capabilities=spec.capabilities | {"state"})
        super().__init__(spec, problem)
        self._state: S | None = None

    @property
    def state(self) -> S:
        """State of the running episodes.

        Raises:
            AllocgymError: before the first ``reset``.
        """
        if self._state is None:
            raise AllocgymError("backend: call reset() first")
        return self._state

    def get_state(self) -> dict[str, Any]:
        """See `Backend.get_state`."""
        return {"state": copy.deepcopy(self.state), "ledger": self.ledger.to_json()}

    def set_state(self, state: dict[str, Any]) -> None:
        """See `Backend.set_state`."""
        self._state = copy.deepcopy(state["state"])
        self._latest = self._outcome(self.state)
        self.ledger.load(state["ledger"])

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> O:
        if self._state is None or where.all():
            self._state = self._fresh(seeds)
        else:
            self._state = self._state.put(where, self._fresh(seeds[where]))
        return self._outcome(self._state)

    def _spend(self, decision: D) -> O:
        self._state = self._step(self.state, decision)
        return self._outcome(self._state)

    @abstractmethod
    def _fresh(self, seeds: np.ndarray) -> S:
        """Return the state in which episodes begin, one for each seed."""

    @abstractmethod
    def _step(self, state: S, decision: D) -> S:
        """Return the state after a period in which ``decision`` was spent."""

    @abstractmethod
    def _outcome(self, state: S) -> O:
        """Read the outcome of the period that led to ``state``."""
