"""PB2: Population Based Bandits, PBT whose explore step is a Gaussian-process bandit."""

from __future__ import annotations

import warnings

import numpy as np

from allocgym.agents.population.heuristics import PBT
from allocgym.envs.core.errors import missing_extra
from allocgym.envs.population.problem import Population

WINDOW = 100
"""Reports of an episode the process is fitted to, the latest ones."""


class PB2(PBT):
    """PB2 (Parker-Holder et al. 2020, arXiv 2002.02518).

    As PBT truncation; instead of perturbing, a copy's knobs maximise an upper confidence bound on the
    improvement per period, under a Gaussian process over (time, log loss before, log knobs) whose
    correlation fades with time: ``k = rbf(x) (1 - eps)^(|t - t'| / 2)``. The confidence weight is
    ``sqrt(0.2 log(0.4 n))``, n the reports so far.

    Args:
        problem: `Population`.
        every: decisions between exploits of a member.
        forget: eps.
        candidates: random knobs the bound is maximised over.

    Raises:
        ImportError: scikit-learn is not installed.
    """

    def __init__(
        self, problem: Population, every: int = 2, forget: float = 0.1, candidates: int = 64
    ) -> None:
        super().__init__(problem, every=every, name="pb2")
        try:
            import sklearn  # noqa: F401
        except ImportError as error:
            raise missing_extra("scikit-learn", "learn") from error
        self.forget, self.candidates = forget, candidates

    def _start(self) -> None:
        super()._start()
        self._data: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def _heard(self) -> None:
        out = self.outcome
        if out.period.max() == 0:
            return
        gain = np.clip(self.memory.before - self.memory.last, -3, 3)
        x = np.concatenate([self.memory.before[..., None], self._unit(out.knobs)], 2)
        told = out.ready & out.alive & (np.take_along_axis(out.used, out.donor, 1) > 0)
        self._data = [*self._data, (x, gain, told)][-WINDOW // 8 :]

    def _unit(self, knobs: np.ndarray) -> np.ndarray:
        inst = self.outcome.instance
        low, high = np.log(inst.low)[:, None], np.log(inst.high)[:, None]
        return np.asarray((np.log(knobs) - low) / (high - low))

    def explored(self, knobs: np.ndarray, resample: float = 0.25) -> np.ndarray:
        """Knobs with the largest upper confidence bound, episode by episode."""
        if not self._data:
            return super().explored(knobs, resample)
        fresh = super().explored(knobs, resample)
        due = (self.memory.age >= self.every) & self.outcome.ready
        for row in np.flatnonzero(due.any(1)):
            fresh[row] = self._suggest(int(row), knobs[row])
        return fresh

    def _suggest(self, row: int, knobs: np.ndarray) -> np.ndarray:
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, WhiteKernel

        inst = self.outcome.instance
        times = [np.full(t[row].sum(), i) for i, (_, _, t) in enumerate(self._data)]
        x = np.concatenate([x[row][t[row]] for x, _, t in self._data])
        y = np.concatenate([g[row][t[row]] for _, g, t in self._data])
        if len(y) < 4:
            return knobs
        age = len(self._data) - np.concatenate(times)
        # What is older tells less: as noise that grows with age, (1 - eps)^-age.
        noise = 1e-3 + ((1 - self.forget) ** -age - 1)
        y = (y - y.mean()) / (y.std() + 1e-9)
        scale = x.std(0) + 1e-3
        process = GaussianProcessRegressor(RBF(1.0) + WhiteKernel(0.1), alpha=noise, optimizer=None)
        process.fit(x / scale, y)
        unit = self.rng.random((self.candidates, knobs.shape[-1]))
        best = np.where(self.here[row], self.memory.last[row], np.inf).min()
        asked = np.concatenate([np.full((self.candidates, 1), best), unit], 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            mean, sd = process.predict(asked / scale, return_std=True)
        weight = np.sqrt(0.2 * np.log(max(0.4 * len(y), 1.5)))
        order = np.argsort(-(mean + weight * sd))[: len(knobs)]
        chosen = inst.low[row] * (inst.high[row] / inst.low[row]) ** unit[order]
        return np.asarray(np.resize(chosen, knobs.shape))
