"""The additive power law of mixtures, and its fit to a table of runs.

``L(h) = E + 1 / sum_j C_j (h_j + h0)^gamma_j`` (Shukor et al. 2025, arXiv 2507.09404, without the terms
in model size and tokens, which a table of like runs cannot tell). It is the law of the simulator (`law`)
at the end of a run. With at most a few runs for each domain the parameters are not all identified: a
pull of every gain towards the mean gain and of every exponent towards the common one keeps what the
runs cannot tell out of the prediction.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from scipy.optimize import minimize

OFFSET = 0.02
"""Share towards which h0 is pulled."""
EXPONENT = 0.5
"""Exponent towards which the common one is pulled."""
PULLS = (0.1, 0.3, 1.0)
"""Strengths of the pull on log C, in standard deviations of the measured values per unit; the pull on
each exponent is ten times as strong. Chosen among by cross-validation (`choose`)."""
LEAST_SHRINK = 0.2
COMMON = 3
"""Parameters that belong to no domain: E, the common exponent, h0."""


@dataclasses.dataclass(frozen=True)
class AdditiveLaw:
    """Parameters of the law for one measured value.

    Attributes:
        floor: E, in the unit of what was measured.
        log_gain: ``(n,)`` log C.
        exponent: ``(n,)`` gamma, > 0.
        offset: h0, > 0.
    """

    floor: float
    log_gain: np.ndarray
    exponent: np.ndarray
    offset: float

    def predict(self, shares: np.ndarray) -> np.ndarray:
        """Values at ``(..., n)`` shares, ``(...)``."""
        log = np.log(shares + self.offset)
        sums = np.exp(self.log_gain + self.exponent * log).sum(-1)
        return np.asarray(self.floor + 1 / sums)

    def slope(self, shares: np.ndarray) -> np.ndarray:
        """Derivatives by shares, ``(..., n)``."""
        terms = np.exp(self.log_gain + self.exponent * np.log(shares + self.offset))
        each = terms * self.exponent / (shares + self.offset)
        return np.asarray(-each / terms.sum(-1, keepdims=True) ** 2)

    def stretched(self, factor: float, centre: float) -> AdditiveLaw:
        """The law whose values lie ``factor`` times as far from ``centre``; it has the same form."""
        floor = centre + factor * (self.floor - centre)
        return AdditiveLaw(floor, self.log_gain - np.log(factor), self.exponent, self.offset)


@dataclasses.dataclass(frozen=True)
class Choice:
    """How strongly a fit is held back, as chosen by cross-validation.

    Attributes:
        pull: of parameters to their middle, one of `PULLS`.
        shrink: of predictions to the mean of the runs, in (0, 1]: predictions of runs that were left out
            vary too much, and are corrected by the slope of what was measured on them.
    """

    pull: float
    shrink: float = 1.0


def fit(
    shares: np.ndarray, values: np.ndarray, choice: Choice, start: AdditiveLaw | None = None
) -> AdditiveLaw:
    """Fit the law by regularised least squares.

    A Gauss-Newton Hessian inside SciPy's trust region: there are about two parameters a domain.

    Args:
        shares: ``(runs, n)``, rows summing to 1.
        values: ``(runs,)`` measured.
        choice: how strongly to regularise.
        start: begin at the parameters of another fit with the same shrinkage (default: all domains
            alike).
    """
    task = _Task(shares, values, choice.pull)
    centre = float(values.mean())
    x0 = task.middle
    if start is not None:
        x0 = task.parameters(start.stretched(1 / choice.shrink, centre))
    found = minimize(
        lambda x: task.at(x)[0],
        x0,
        method="trust-exact",
        jac=lambda x: task.at(x)[1],
        hess=lambda x: task.at(x)[2],
        options={"gtol": 1e-2, "maxiter": 100, "initial_trust_radius": 2.0},
    )
    return task.law(found.x).stretched(choice.shrink, centre)


def choose(shares: np.ndarray, values: np.ndarray) -> Choice:
    """Return the regularisation that predicts these runs best when each is left out.

    What a fit without a run would say of it is read off the fit with all, to first order (Allen's PRESS):
    the error grows by ``1 / (1 - leverage)``.
    """
    law, errors = None, []
    for pull in reversed(PULLS):
        law = fit(shares, values, Choice(pull), law)
        errors.append(_Task(shares, values, pull).left_out(law))
    best = int(np.argmin([np.mean(e**2) for e in errors]))
    away = values + errors[best] - values.mean()
    slope = float(away @ (values - values.mean()) / max(away @ away, 1e-300))
    return Choice(PULLS[::-1][best], float(np.clip(slope, LEAST_SHRINK, 1.0)))


def fold_of(runs: int, folds: int, seed: int) -> list[np.ndarray]:
    """Partition runs at random: for each fold, ``(runs,)`` bool of those in it."""
    order = np.random.default_rng(seed).permutation(runs)
    return [np.isin(np.arange(runs), order[k::folds]) for k in range(min(folds, runs))]


class _Task:
    """One least-squares problem: cost, gradient and Hessian at a vector of parameters.

    Parameters are E, log of the common exponent, log h0, log C (n), log gamma less the common one (n);
    values are in units of their standard deviation.
    """

    def __init__(self, shares: np.ndarray, values: np.ndarray, pull: float) -> None:
        self.shares, n = shares, shares.shape[1]
        self.unit = max(float(values.std()), 1e-9)
        self.values = values / self.unit
        floor = float(self.values.min()) - 0.5
        gain = -np.log(self.values.mean() - floor) - np.log(0.25 * n)
        common = [floor, np.log(EXPONENT), np.log(OFFSET)]
        self.middle = np.concatenate([common, np.full(n, gain), np.zeros(n)])
        weak = [0.03, 0.1, 0.05]
        self.pull = np.concatenate([weak, np.full(n, pull), np.full(n, 10 * pull)]) ** 2
        self._last: tuple[bytes, Any] = (b"", None)

    def at(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """Half the sum of squares, its gradient and its Gauss-Newton Hessian."""
        key = x.tobytes()
        if self._last[0] != key:
            self._last = (key, self._evaluate(x))
        found: tuple[float, np.ndarray, np.ndarray] = self._last[1]
        return found

    def _evaluate(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        n = self.shares.shape[1]
        error, jacobian = self._errors(x)
        away = x - self.middle
        # Gains are pulled to their own mean, wherever that is.
        gain = x[COMMON : COMMON + n]
        away[COMMON : COMMON + n] = gain - gain.mean()
        cost = 0.5 * float(error @ error + self.pull @ away**2)
        hessian = jacobian.T @ jacobian + np.diag(self.pull)
        hessian[COMMON : COMMON + n, COMMON : COMMON + n] -= self.pull[COMMON] / n
        return cost, jacobian.T @ error + self.pull * away, hessian

    def _errors(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions less values, and their derivatives by parameters."""
        n = self.shares.shape[1]
        gain, offset = x[COMMON : COMMON + n], np.exp(x[2])
        log = np.log(self.shares + offset)
        exponent = np.exp(np.minimum(x[1] + x[COMMON + n :], 3.0))
        terms = np.exp(np.minimum(gain + exponent * log, 200.0))
        sums = np.maximum(terms.sum(1), 1e-30)
        error = x[0] + 1 / sums - self.values
        by_gain = -terms / sums[:, None] ** 2
        by_exponent = by_gain * log * exponent
        by_offset = (by_gain * exponent * offset / (self.shares + offset)).sum(1)
        rows = [np.ones(len(error)), by_exponent.sum(1), by_offset]
        return error, np.concatenate([np.stack(rows, 1), by_gain, by_exponent], 1)

    def left_out(self, law: AdditiveLaw) -> np.ndarray:
        """Errors of predictions by fits without the run, to first order, in the unit measured."""
        x = self.parameters(law)
        error, jacobian = self._errors(x)
        hessian = self.at(x)[2]
        leverage = np.einsum("ip,ip->i", jacobian, np.linalg.solve(hessian, jacobian.T).T)
        return np.asarray(error / np.maximum(1 - leverage, 0.05) * self.unit)

    def law(self, x: np.ndarray) -> AdditiveLaw:
        """The law that a vector stands for, in the unit of what was measured."""
        n = self.shares.shape[1]
        gain = x[COMMON : COMMON + n] - np.log(self.unit)
        exponent = np.exp(np.minimum(x[1] + x[COMMON + n :], 3.0))
        return AdditiveLaw(float(x[0] * self.unit), gain, exponent, float(np.exp(x[2])))

    def parameters(self, law: AdditiveLaw) -> np.ndarray:
        """The vector that stands for a law."""
        log = np.log(law.exponent)
        common = [law.floor / self.unit, log.mean(), np.log(law.offset)]
        gain = law.log_gain + np.log(self.unit)
        return np.concatenate([common, gain, log - log.mean()])
