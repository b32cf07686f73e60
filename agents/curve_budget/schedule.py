"""Jobs and who names them: an episode of curves as a scheduler sees it, and the agent that obeys one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.envs.curve_budget.problem import Allotment, CurveBudget, CurveOutcome

Job = tuple[int, int]
"""A configuration and the units it shall have been given in all."""


class Episode:
    """One episode as a scheduler of jobs sees it.

    Attributes:
        count, limit: configurations; units in a whole curve.
        scores: ``(n,)`` lowest losses, the latest known.
        history: for each configuration, pairs (units, lowest loss) as they were reported.
    """

    def __init__(self, count: int, limit: int) -> None:
        self.count, self.limit = count, limit
        self.scores = np.full(count, np.inf)
        self.history: list[list[tuple[int, float]]] = [[] for _ in range(count)]

    def report(self, used: np.ndarray, scores: np.ndarray) -> None:
        """Take in a period's outcome."""
        self.scores = scores[: self.count].copy()
        for i in range(self.count):
            if used[i] and (not self.history[i] or self.history[i][-1][0] < used[i]):
                self.history[i].append((int(used[i]), float(scores[i])))

    def at(self, index: int, units: int) -> float:
        """Lowest loss of a configuration when it had been given ``units`` or the first report after."""
        for used, score in self.history[index]:
            if used >= units:
                return score
        return float(self.scores[index])

    def ranked(self, indices: list[int], units: int) -> list[int]:
        """Configurations by their loss at ``units``, the best first."""
        return sorted(indices, key=lambda i: self.at(i, units))


class Scheduled(Agent[CurveOutcome, Allotment]):
    """Gives a period's units to one job after the other, as its schedule names them.

    Where there are no more jobs, the best open configuration goes on. A job that ends within a period is
    judged by the last report before it.
    """

    problem: CurveBudget

    @abstractmethod
    def jobs(self, episode: Episode) -> Iterator[Job]:
        """Name one job after the other; what those before it brought stands in ``episode``."""

    def _start(self) -> None:
        self._episodes: list[Episode] = []

    def _heard(self) -> None:
        out = self.outcome
        if not self._episodes:
            counts, limits = out.instance.present.sum(1), out.instance.limit
            self._episodes = [Episode(int(c), int(w)) for c, w in zip(counts, limits, strict=True)]
            self._jobs = [self.jobs(e) for e in self._episodes]
            self._current: list[Job | None] = [next(j, None) for j in self._jobs]
        for row, episode in enumerate(self._episodes):
            episode.report(out.used[row], out.scores[row])

    def ask(self) -> Allotment:
        """See `Agent.ask`."""
        out = self.outcome
        room = self.problem.room(out)
        units = np.zeros_like(room)
        for row in np.flatnonzero(out.grant > 0):
            rest = int(out.grant[row])
            while rest and (job := self._current[row]) is not None:
                index, until = job
                wanted = until - int(out.used[row, index] + units[row, index])
                more = min(wanted, int(room[row, index] - units[row, index]), rest)
                if more <= 0:
                    self._current[row] = next(self._jobs[row], None)
                    continue
                units[row, index] += more
                rest -= more
            for index in np.argsort(out.scores[row], kind="stable"):
                more = min(int(room[row, index] - units[row, index]), rest)
                units[row, index] += more
                rest -= more
        return Allotment(units, np.zeros(units.shape, bool))
