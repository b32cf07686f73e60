"""Early stopping over fixed configurations: published schedulers of jobs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from allocgym.agents.curve_budget.schedule import Episode, Job, Scheduled
from allocgym.envs.curve_budget.problem import CurveBudget


class RandomSearch(Scheduled):
    """Random search: one whole curve after the other."""

    name = "random-search"

    def jobs(self, episode: Episode) -> Iterator[Job]:
        """See `Scheduled.jobs`."""
        for i in range(episode.count):
            yield i, episode.limit


class MedianStopping(Scheduled):
    """Vizier's rule (Golovin et al. 2017): stop below the median of the others' running averages."""

    name = "median-stopping"

    def __init__(self, problem: CurveBudget, step: int = 2, startup: int = 1) -> None:
        super().__init__(problem)
        self.step, self.startup = step, startup

    def jobs(self, episode: Episode) -> Iterator[Job]:
        """See `Scheduled.jobs`."""
        for i in range(episode.count):
            for units in range(self.step, episode.limit + self.step, self.step):
                yield i, min(units, episode.limit)
                others = [
                    np.mean([s for u, s in episode.history[j] if u <= units])
                    for j in range(i)
                    if any(u <= units for u, _ in episode.history[j])
                ]
                if len(others) >= self.startup and episode.scores[i] > np.median(others):
                    break


class ASHA(Scheduled):
    """Asynchronous successive halving (Li et al. 2020): promote whoever is in a rung's best 1/eta."""

    name = "asha"

    def __init__(self, problem: CurveBudget, eta: int = 3) -> None:
        super().__init__(problem)
        self.eta = eta

    def jobs(self, episode: Episode) -> Iterator[Job]:
        """See `Scheduled.jobs`."""
        rungs = [max(round(episode.limit * self.eta ** (k - 3)), 1) for k in range(4)]
        reached: list[list[int]] = [[] for _ in rungs]
        promoted: list[set[int]] = [set() for _ in rungs]
        fresh = 0
        while True:
            job = None
            for k in range(len(rungs) - 2, -1, -1):
                ranked = episode.ranked(reached[k], rungs[k])
                top = [i for i in ranked[: len(ranked) // self.eta] if i not in promoted[k]]
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


class Hyperband(Scheduled):
    """Hyperband (Li et al. 2018): brackets of successive halving, most aggressive first."""

    name = "hyperband"

    def __init__(self, problem: CurveBudget, eta: int = 3) -> None:
        super().__init__(problem)
        self.eta = eta

    def jobs(self, episode: Episode) -> Iterator[Job]:
        """See `Scheduled.jobs`."""
        sizes = np.array([self.eta**s * 4 / (s + 1) for s in (3, 2, 1, 0)])
        share = np.maximum(np.round(sizes / sizes.sum() * episode.count), 1).astype(int)
        begun = 0
        for s, size in zip((3, 2, 1, 0), share, strict=True):
            running = list(range(begun, min(begun + size, episode.count)))
            begun += size
            for k in range(s, -1, -1):
                units = max(round(episode.limit * self.eta**-k), 1)
                for i in running:
                    yield i, units
                ranked = episode.ranked(running, units)
                running = ranked[: max(len(ranked) // self.eta, 1)]
