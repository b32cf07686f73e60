"""What happened in a run, read from its journal when it is asked for."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Self, TypeVar, overload

from allocgym.agents.core.guards import OTHER, Event
from allocgym.envs.core.contracts import Outcome, Problem
from allocgym.envs.core.errors import CorruptFileError
from allocgym.envs.core.journal import Journal

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A decision and the key under which it may be carried out once.

    Attributes:
        decision: what to do.
        key: the same after a restart; a training loop that has seen it need not act again.
        period: number of the period, from 0.
        events: where the guards stepped in.
    """

    decision: Any
    key: str
    period: int
    events: tuple[Event, ...] = ()

    @property
    def interventions(self) -> tuple[str, ...]:
        """What the guards did, in words."""
        return tuple(str(event) for event in self.events)


class Lines(Sequence[T], Generic[T]):
    """Every second line of a journal as a sequence; one that is asked for again is read again."""

    def __init__(self, history: History, first: int) -> None:
        self._history, self._first = history, first

    def __len__(self) -> int:
        return (len(self._history.journal) + 1 - self._first) // 2

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        """One item, or a list of several."""
        chosen = range(len(self))[index]
        if isinstance(chosen, range):
            return [self._history.item(self._first + 2 * k) for k in chosen]
        found: T = self._history.item(self._first + 2 * chosen)
        return found

    def __iter__(self) -> Iterator[T]:
        for number, item in enumerate(self._history.read()):
            if number % 2 == self._first:
                yield item


class History:
    """Outcomes and decisions of a run, in turn: line 0 is the outcome before training.

    Attributes:
        problem: what was decided.
        journal: where it is written down.
        outcomes: the first before training, then one for each period carried out.
        decisions: one for each period decided, as `Keyed`.
    """

    def __init__(self, problem: Problem, journal: Journal) -> None:
        self.problem = problem
        self.journal = journal
        self.outcomes: Lines[Outcome] = Lines(self, 0)
        self.decisions: Lines[Keyed] = Lines(self, 1)

    @classmethod
    def of(cls, problem: Problem, folder: Path | str) -> Self:
        """Read the journal of a run folder as it is now; nothing is owned or changed."""
        return cls(problem, Journal.reading(Path(folder) / "journal.jsonl"))

    def read(self, start: int = 0) -> Iterator[Any]:
        """Yield outcomes and decisions from a line on."""
        for number, entry in enumerate(self.journal.read(start), start):
            yield self._made(entry, number)

    def item(self, line: int) -> Any:
        """Return the outcome or the decision of a line."""
        return self._made(self.journal.entry(line), line)

    def events(self) -> Iterator[Event]:
        """Yield every event, oldest first."""
        for keyed in self.decisions:
            yield from keyed.events

    def counts(self) -> dict[str, int]:
        """Count the events by kind."""
        return dict(collections.Counter(event.kind for event in self.events()))

    def _made(self, entry: dict[str, Any], line: int) -> Any:
        if entry.get("kind") != ("outcome", "decision")[line % 2]:
            raise CorruptFileError(
                f"{self.journal.path}: entry {line + 1} is neither outcome nor decision, or out of "
                f"turn; the folder holds no run of ours"
            )
        try:
            if line % 2 == 0:
                return self.problem.outcome_type.from_json(entry["data"])
            period = line // 2
            words = entry["interventions"]
            kinds = entry.get("events") or [OTHER] * len(words)
            events = tuple(Event(period, k, w) for k, w in zip(kinds, words, strict=True))
            decision = self.problem.decision_type.from_json(entry["data"])
            return Keyed(decision, entry["key"], period, events)
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptFileError(
                f"{self.journal.path}: entry {line + 1} is no entry of {self.problem.id!r} ({error}); "
                f"resume it with the version that wrote it"
            ) from error
