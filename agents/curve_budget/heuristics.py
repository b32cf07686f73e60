"""Early stopping over fixed configurations: schedulers of jobs, and a learned priority."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.core.evolution import tune
from allocgym.agents.curve_budget.signal import early_signals, extrapolation
from allocgym.envs.core.errors import CorruptFileError, unknown
from allocgym.envs.curve_budget.problem import (
    CONTEXT_FEATURES,
    ROW_FEATURES,
    Allotment,
    CurveBudget,
    CurveOutcome,
)

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


def in_turn(episode: Episode) -> Iterator[Job]:
    """Random search: one whole curve after the other."""
    for i in range(episode.count):
        yield i, episode.limit


def median_stopping(episode: Episode, step: int = 2, startup: int = 1) -> Iterator[Job]:
    """Vizier's rule (Golovin et al. 2017): stop below the median of the others' running averages."""
    for i in range(episode.count):
        for units in range(step, episode.limit + step, step):
            yield i, min(units, episode.limit)
            others = [
                np.mean([s for u, s in episode.history[j] if u <= units])
                for j in range(i)
                if any(u <= units for u, _ in episode.history[j])
            ]
            if len(others) >= startup and episode.scores[i] > np.median(others):
                break


def asha(episode: Episode, eta: int = 3) -> Iterator[Job]:
    """Asynchronous successive halving (Li et al. 2020): promote whoever is in a rung's best 1/eta."""
    rungs = [max(round(episode.limit * eta ** (k - 3)), 1) for k in range(4)]
    reached: list[list[int]] = [[] for _ in rungs]
    promoted: list[set[int]] = [set() for _ in rungs]
    fresh = 0
    while True:
        job = None
        for k in range(len(rungs) - 2, -1, -1):
            ranked = episode.ranked(reached[k], rungs[k])
            top = [i for i in ranked[: len(ranked) // eta] if i not in promoted[k]]
            if not top and fresh == episode.count:
                # No new configuration is left: the best of those waiting goes on.
                top = [i for i in ranked if i not in promoted[k]]
            if top:
                job = (top[0], k + 1)
                promoted[k].add(top[0])
                break
        if job is None:
            if fresh == episode.count:
                return
            job, fresh = (fresh, 0), fresh + 1
        yield job[0], rungs[job[1]]
        reached[job[1]].append(job[0])


def hyperband(episode: Episode, eta: int = 3) -> Iterator[Job]:
    """Hyperband (Li et al. 2018): brackets of successive halving, most aggressive first."""
    sizes = np.array([eta**s * 4 / (s + 1) for s in (3, 2, 1, 0)])
    share = np.maximum(np.round(sizes / sizes.sum() * episode.count), 1).astype(int)
    begun = 0
    for s, size in zip((3, 2, 1, 0), share, strict=True):
        running = list(range(begun, min(begun + size, episode.count)))
        begun += size
        for k in range(s, -1, -1):
            units = max(round(episode.limit * eta**-k), 1)
            for i in running:
                yield i, units
            ranked = episode.ranked(running, units)
            running = ranked[: max(len(ranked) // eta, 1)]


SCHEDULERS: dict[str, Callable[[Episode], Iterator[Job]]] = {
    "random-search": in_turn,
    "asha": asha,
    "hyperband": hyperband,
    "median-stopping": median_stopping,
    "extrapolation": extrapolation,
    "early-signals": early_signals,
}


class Scheduled(Agent[CurveOutcome, Allotment]):
    """Gives a period's units to one job after the other, as a scheduler names them.

    Args:
        problem: `CurveBudget`.
        scheduler: a key of `SCHEDULERS`. Where it has no more jobs, the best open one goes on. A job
            that ends within a period is judged by the last report before it.
    """

    problem: CurveBudget

    def __init__(self, problem: CurveBudget, scheduler: str) -> None:
        super().__init__(problem)
        if scheduler not in SCHEDULERS:
            raise unknown("scheduler", scheduler, SCHEDULERS)
        self.name = scheduler
        self._schedule = SCHEDULERS[scheduler]

    def _start(self) -> None:
        self._episodes: list[Episode] = []

    def _heard(self) -> None:
        out = self.outcome
        if not self._episodes:
            counts, limits = out.instance.present.sum(1), out.instance.limit
            self._episodes = [Episode(int(c), int(w)) for c, w in zip(counts, limits, strict=True)]
            self._jobs = [self._schedule(e) for e in self._episodes]
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


class LinearPriority(Agent[CurveOutcome, Allotment]):
    """Units in proportion to the exponential of a linear function of each row's features.

    Args:
        problem: `CurveBudget`.
        parameters: weights of the nine features, then of the first three times the budget used, then
            the log of the concentration.
        name: shown in tables.
    """

    problem: CurveBudget

    def __init__(
        self, problem: CurveBudget, parameters: Sequence[float], name: str = "learned (cma)"
    ) -> None:
        super().__init__(problem)
        self.parameters = agent_file.numbers("parameters", parameters, PARAMETERS)
        self.name = name

    def ask(self) -> Allotment:
        """See `Agent.ask`."""
        seen = self.problem.encode(self.memory)
        rows, p = seen["claimants"].astype(float), self.parameters
        spent = 1 - seen["context"][:, CONTEXT_FEATURES.index("budget left")].astype(float)
        k = len(ROW_FEATURES)
        value = rows @ p[:k] + spent[:, None] * (rows[..., :3] @ p[k : k + 3])
        value = np.where(self.problem.room(self.outcome) > 0, value, -np.inf)
        top = value.max(1, keepdims=True)
        top = np.where(np.isfinite(top), top, 0.0)
        return self.problem.divide(
            np.exp(np.clip(np.exp(np.clip(p[-1], -3, 3)) * (value - top), -30, 0)), self.memory
        )


PARAMETERS = len(ROW_FEATURES) + 4
START = (-1.0, -1.0, 0.1, 0.0, 0.0, 0.0, 1.0, *[0.0] * 5, 0.5)


def time_to_target(outcomes: list[CurveOutcome]) -> np.ndarray:
    """Units until the target was measured, ``(batch,)`` float64; infinity where it never was.

    A target that is met before any training counts as met by the first unit.
    """
    found = np.full(len(outcomes[0].period), np.inf)
    for out in outcomes:
        best = np.where(out.instance.present, out.scores, np.inf).min(1)
        used = np.maximum(out.used.sum(1), 1).astype(float)
        found = np.where((best <= out.instance.target) & np.isinf(found), used, found)
    return found


def train(
    problem: CurveBudget,
    backend: Any,
    iterations: int = 20,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[LinearPriority, dict[str, Any]]:
    """Tune the weights by CMA-ES: log time to target, a miss at twice the budget.

    Raises:
        ImportError: ``cma`` is not installed.
    """

    def score(parameters: list[float], seeds: np.ndarray) -> float:
        outcomes = rollout(LinearPriority(problem, parameters), backend, seeds)
        total = outcomes[0].instance.total
        return float(np.log(np.minimum(time_to_target(outcomes), 2 * total)).mean())

    parameters, information = tune(
        score, backend.spec.batch_size, START, 0.5, iterations, seed, 12, progress
    )
    return LinearPriority(problem, parameters), information


def save(path: Path, agent: LinearPriority, provenance: dict[str, Any]) -> None:
    """Write a tuned agent as an agent file."""
    settings = {"parameters": agent.parameters.tolist()}
    agent_file.save(path, agent.problem, "linear-priority", settings, None, provenance)


PRETRAINED = Path(__file__).parent / "pretrained" / "learned.zip"


def names() -> list[str]:
    """Names `make` understands, besides paths of agent files."""
    return [*SCHEDULERS, "learned"]


def make(name: str | Path, problem: CurveBudget) -> Agent:
    """Build an agent from a name or an agent file; ``"learned"`` is the one that is shipped.

    Raises:
        AllocgymError: neither a known name nor a file.
    """
    text = str(PRETRAINED if str(name) == "learned" else name)
    if text in SCHEDULERS:
        return Scheduled(problem, text)
    if Path(text).suffix == ".zip":
        description, _ = agent_file.load(Path(text), problem)
        try:
            parameters = description["settings"]["parameters"]
        except (KeyError, TypeError) as error:
            raise CorruptFileError(f"{text}: no linear priority") from error
        stem = "learned (cma)" if Path(text) == PRETRAINED else Path(text).stem
        return LinearPriority(problem, parameters, stem)
    raise unknown("agent", text, names())
