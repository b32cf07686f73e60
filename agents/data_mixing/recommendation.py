"""The mixture to train on, by a fitted law: pessimistic, within what the data and the runs allow.

The optimum of a fitted law is promised too much: it lies where the law errs in its favour. What is
maximised is therefore the lower end of the gain over an ensemble of fits, never beyond the largest
share that any run gave to a domain, at a price on the distance to the prior (as in Olmix).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from allocgym.envs.core.budget import capped_shares
from allocgym.envs.core.errors import AllocgymError

KL_WEIGHT = 0.05
"""Loss that one nat of distance to the prior must bring, as in Olmix."""
EPOCHS = 4.0
"""Times that data may be repeated, as in Olmix."""
LOWER = 1.645
"""Standard deviations of the ensemble below its mean: the lower end of a one-sided 95 % interval."""
LEAST = 1e-9
"""Shares stay above this inside the search, where the distance needs their logarithm."""

TRACE = 1e-6
"""Shares below this are the search's rounding error, and are left out."""


class Fit(Protocol):
    """What is needed of a fit; `simulators.data_mixing.ensemble.TableFit` is one and documents it."""

    @property
    def domains(self) -> tuple[str, ...]:
        """Names."""
        ...

    @property
    def prior(self) -> np.ndarray:
        """Natural shares, ``(n,)``."""
        ...

    @property
    def tokens(self) -> np.ndarray | None:
        """Tokens there are of each domain, ``(n,)``."""
        ...

    @property
    def largest(self) -> np.ndarray:
        """Largest share that any run gave to each domain, ``(n,)``."""
        ...

    def predict(self, shares: np.ndarray) -> np.ndarray:
        """Values ``(members, families)`` at the end of a schedule ``(phases, n)``."""
        ...

    def slopes(self, shares: np.ndarray) -> np.ndarray:
        """Derivatives of `predict`, ``(members, families, phases, n)``."""
        ...

    def lengths_of(self, phases: int) -> np.ndarray:
        """Fraction of the run in each phase."""
        ...


@dataclasses.dataclass(frozen=True)
class Target:
    """What is asked for.

    Attributes:
        weights: ``(families,)`` of what is measured, summing to 1.
        kl_weight: price of a nat of Kullback-Leibler distance to the prior, >= 0, in the unit of what is
            measured.
        run_tokens: tokens of the run to come, or None: data are not limited.
        epochs: times that each domain's tokens may be repeated, > 0.
        pessimism: standard deviations of the ensemble that the gain is lowered by, >= 0; 0 trusts the
            mean of the fits.
    """

    weights: np.ndarray
    kl_weight: float = KL_WEIGHT
    run_tokens: float | None = None
    epochs: float = EPOCHS
    pessimism: float = LOWER

    def __post_init__(self) -> None:
        for name, low in (("kl_weight", True), ("epochs", False), ("pessimism", True)):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0 or (value == 0 and not low):
                sign = ">=" if low else ">"
                raise AllocgymError(f"{name}: a number {sign} 0 expected, given {value}")
        if self.run_tokens is not None and not 0 < self.run_tokens < np.inf:
            raise AllocgymError(f"run_tokens: a number > 0 expected, given {self.run_tokens}")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """What to train on, and what is foretold of it, beside the prior mixture.

    Attributes:
        shares: ``(phases, n)``, each phase summing to 1; one phase is a static mixture.
        gain: foretold fall of the target against the prior: mean over the ensemble.
        low, high: its 5 % and 95 % quantiles over the ensemble.
        value: foretold target (mean over the ensemble).
        distance: of the whole run's mixture from the prior, in nats.
        bound: names of the domains that are at their cap.
    """

    shares: np.ndarray
    gain: float
    low: float
    high: float
    value: float
    distance: float
    bound: tuple[str, ...]


def recommend(fit: Fit, target: Target, phases: int = 1) -> Recommendation:
    """Return the mixture, or the schedule of several phases, with the largest sure gain.

    Args:
        fit: an ensemble of laws.
        target: what is asked for.
        phases: 1, or as many as the fitted runs have.

    Raises:
        AllocgymError: tokens are limited but were not told, or are too few for the run.
    """
    from scipy.optimize import LinearConstraint, minimize

    n, lengths = len(fit.domains), fit.lengths_of(phases)
    caps = _caps(fit, target)
    # A phase may go as far as a run did, the whole run as far as its tokens last.
    highest = np.tile(np.minimum(fit.largest, 1.0 if phases > 1 else caps), (phases, 1))
    search = _Search(fit, target, lengths)
    sums = LinearConstraint(np.kron(np.eye(phases), np.ones(n)), 1.0, 1.0)
    limits = [sums]
    if phases > 1 and (caps < 1).any():
        limits.append(LinearConstraint(np.kron(lengths, np.eye(n)), 0.0, caps))
    best = None
    within = np.minimum(highest[0], caps)
    for start in (_into(fit.prior, within), _into(fit.largest / fit.largest.sum(), within)):
        found = minimize(
            search.cost,
            np.tile(start, phases),
            method="SLSQP",
            jac=search.slope,
            bounds=[(0.0, float(h)) for h in highest.ravel()],
            constraints=limits,
            options={"maxiter": 300, "ftol": 1e-9},
        )
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    shares = np.clip(best.x.reshape(phases, n), 0.0, highest)
    shares = np.stack([_into(row / row.sum(), highest[0]) for row in shares])
    shares[shares < TRACE] = 0.0
    shares /= shares.sum(1, keepdims=True)
    return search.told(shares, np.minimum(caps, fit.largest))


def _caps(fit: Fit, target: Target) -> np.ndarray:
    """Largest share of each domain over the whole run, ``(n,)``."""
    if target.run_tokens is None:
        caps = np.ones(len(fit.domains))
    elif fit.tokens is None:
        raise AllocgymError(
            "run_tokens: the fit knows no token counts; calibrate with --tokens to limit them"
        )
    else:
        caps = np.minimum(target.epochs * fit.tokens / target.run_tokens, 1.0)
    room = float(np.minimum(caps, fit.largest).sum())
    if room < 1:
        raise AllocgymError(
            f"run_tokens, epochs: the domains may supply {room:.3g} of the run within their caps and "
            "the shares that were tried; at least 1 expected"
        )
    return caps


def _into(shares: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """Shares that sum to 1 within ``highest``, in the ratios given wherever no cap binds."""
    low = np.zeros((len(shares), 1))
    return capped_shares(shares[:, None] + LEAST, low, highest[:, None])[:, 0]


class _Search:
    """What is minimised: the price of distance less the lower end of the gain."""

    def __init__(self, fit: Fit, target: Target, lengths: np.ndarray) -> None:
        self.fit, self.target, self.lengths = fit, target, lengths
        self.shape = len(lengths), len(fit.domains)
        prior = np.tile(fit.prior, (len(lengths), 1))
        self.before = fit.predict(prior) @ target.weights

    def gains(self, x: np.ndarray) -> np.ndarray:
        """Fall against the prior, by member."""
        after = self.fit.predict(x.reshape(self.shape)) @ self.target.weights
        return np.asarray(self.before - after)

    def cost(self, x: np.ndarray) -> float:
        gains = self.gains(x)
        sure = gains.mean() - self.target.pessimism * gains.std()
        return float(self.target.kl_weight * self.distance(x) - sure)

    def slope(self, x: np.ndarray) -> np.ndarray:
        gains, members = self.gains(x), len(self.before)
        each = 1 / members * np.ones(members)
        spread = gains.std()
        if spread > 1e-12:
            each -= self.target.pessimism * (gains - gains.mean()) / (members * spread)
        slopes = np.einsum(
            "mfkn,f->mkn", self.fit.slopes(x.reshape(self.shape)), self.target.weights
        )
        mixture = self.lengths @ x.reshape(self.shape)
        away = np.log(np.maximum(mixture, LEAST) / self.fit.prior) + 1
        price = self.target.kl_weight * self.lengths[:, None] * away
        return np.asarray((np.einsum("m,mkn->kn", each, slopes) + price).ravel())

    def distance(self, x: np.ndarray) -> float:
        """Kullback-Leibler distance of the whole run's mixture from the prior, nats."""
        mixture = np.maximum(self.lengths @ x.reshape(self.shape), LEAST)
        return float(np.sum(mixture * np.log(mixture / self.fit.prior)))

    def told(self, shares: np.ndarray, caps: np.ndarray) -> Recommendation:
        """What is foretold of a schedule."""
        gains = self.gains(shares)
        low, high = np.quantile(gains, (0.05, 0.95))
        at = (self.lengths @ shares >= caps - 1e-6) & (caps < 1)
        return Recommendation(
            shares=shares,
            gain=float(gains.mean()),
            low=float(low),
            high=float(high),
            value=float((self.before - gains).mean()),
            distance=max(self.distance(shares), 0.0),
            bound=tuple(d for d, there in zip(self.fit.domains, at, strict=True) if there),
        )


def as_dict(fit: Fit, found: Recommendation) -> Mapping[str, Any]:
    """Plain numbers by domain, for JSON."""
    phases = [
        {d: round(float(s), 6) for d, s in zip(fit.domains, row, strict=True)}
        for row in found.shares
    ]
    return {
        "mixture": phases[0] if len(phases) == 1 else phases,
        "gain": round(found.gain, 6),
        "gain interval": [round(found.low, 6), round(found.high, 6)],
        "value": round(found.value, 6),
        "distance to the prior (nats)": round(found.distance, 6),
        "at their cap": list(found.bound),
    }
