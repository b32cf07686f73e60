"""Stopping rules that look at the shape of a curve: extrapolation, early signals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from allocgym.agents.curve_budget.schedule import Episode, Job, Scheduled
from allocgym.envs.curve_budget.problem import CurveBudget

EXPONENTS = np.linspace(0.05, 2.0, 40)
"""Powers a curve is fitted with."""


def power_law(units: Sequence[float], losses: Sequence[float]) -> tuple[float, float, float]:
    """Fit ``a units^-b + c`` with ``a >= 0`` by least squares; return (a, b, c).

    b is one of `EXPONENTS`; a and c are closed-form for each.
    """
    x, y = np.asarray(units, float), np.asarray(losses, float)
    basis = x ** -EXPONENTS[:, None]
    shifted = basis - basis.mean(1, keepdims=True)
    spread = (shifted**2).sum(1)
    slope = np.divide(shifted @ y, spread, out=np.zeros_like(spread), where=spread > 0)
    a = np.maximum(slope, 0.0)
    c = y.mean() - a * basis.mean(1)
    error = ((a[:, None] * basis + c[:, None] - y) ** 2).sum(1)
    k = int(error.argmin())
    return float(a[k]), float(EXPONENTS[k]), float(c[k])


class Extrapolation(Scheduled):
    """Follow each curve's prediction of its own end until it has settled, then stop the losers.

    After Vilares et al. (arXiv 2402.02515), who stop the training of taggers: a decreasing convex power
    law is fitted to growing prefixes; the fits' predictions are the learning trace; from the prediction
    level on, two neighbours of the trace closer than the proximity threshold say that training more
    teaches nothing about the end. Here the end is what the curve will be at its limit, and a
    configuration whose end is settled and no better than the best known is given up. The lowest loss so
    far is fitted, so an irregular point cannot raise the trace.

    Args:
        problem: `CurveBudget`.
        step: units between two fits.
        proximity: relative difference of neighbours in the trace below which it has settled.
        level: reports before the first fit (the prediction level).
    """

    name = "extrapolation"

    def __init__(
        self, problem: CurveBudget, step: int = 2, proximity: float = 0.02, level: int = 4
    ) -> None:
        super().__init__(problem)
        self.step, self.proximity, self.level = step, proximity, level

    def jobs(self, episode: Episode) -> Iterator[Job]:
        """See `Scheduled.jobs`."""
        best = np.inf
        for i in range(episode.count):
            trace: list[float] = []
            for units in range(self.step, episode.limit + self.step, self.step):
                yield i, min(units, episode.limit)
                if len(episode.history[i]) < self.level:
                    continue
                a, b, c = power_law(*zip(*episode.history[i], strict=True))
                trace.append(a * episode.limit**-b + c)
                settled = len(trace) > 1 and abs(trace[-1] - trace[-2]) <= self.proximity * abs(
                    trace[-1]
                )
                if settled and trace[-1] >= best:
                    break
            best = min(best, float(episode.scores[i]))


class EarlySignals(Scheduled):
    """Train everything a little, keep those that start slowly.

    After what Pareja et al. (arXiv 2412.13337) report of fine-tuning small language models: a lower
    gradient norm and a higher loss early on go with a better model at the end. Recorded curves hold no
    gradient norms; the fall of the loss per unit, which is the rate times the squared norm to first
    order, stands in for it. The two ranks are added. What holds for fine-tuning under one schedule need
    not hold across arbitrary configurations: the suite says how it does here.

    Args:
        problem: `CurveBudget`.
        share: of a curve that counts as early.
        keep: one of so many configurations is trained to the end, the best sum of ranks first.
    """

    name = "early-signals"

    def __init__(self, problem: CurveBudget, share: float = 0.1, keep: int = 3) -> None:
        super().__init__(problem)
        self.share, self.keep = share, keep

    def jobs(self, episode: Episode) -> Iterator[Job]:
        """See `Scheduled.jobs`."""
        early = max(round(self.share * episode.limit), 2)
        for i in range(episode.count):
            yield i, max(early // 2, 1)
            yield i, early
        everyone = list(range(episode.count))
        late = [episode.at(i, early) for i in everyone]
        fall = [episode.at(i, max(early // 2, 1)) - episode.at(i, early) for i in everyone]
        rank = np.argsort(np.argsort(fall, kind="stable")) + np.argsort(
            np.argsort(-np.array(late), kind="stable")
        )
        for i in np.argsort(rank, kind="stable")[: max(episode.count // self.keep, 1)]:
            yield int(i), episode.limit
