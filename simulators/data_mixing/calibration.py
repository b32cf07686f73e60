"""Fits the learning law to recorded real runs, and says how well it predicts others.

Pilots cover replay ratios, learning-rate schedules and seeds; half of them switch their mixture
mid-run, the others keep it, some split unevenly between sources: static pilots cannot tell fast
(recoverable) from slow forgetting. What is fitted is the whole curve of every domain.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from allocgym.simulators.data_mixing import law as laws
from allocgym.simulators.data_mixing.families import TRAITS, recorded_law

RATIOS = (0.05, 0.10, 0.25, 0.50, 0.75)
SCHEDULES = ("cosine", "constant")
# Bounds of every trait; E and scale are only weakly identified, which the bounds keep sane.
BOUNDS = {
    "floor": (0.05, 4.0), "scale": (0.05, 4.0), "exponent": (0.1, 1.2), "cross": (1e-3, 1.0),
    "start": (1e-3, 6.0), "forget": (1e-3, 1.5), "neglect": (1e-3, 12.0), "rate": (1e-4, 0.3),
    "recency": (1e-4, 0.3),
}  # fmt: skip
SHARED = {"c": 0.05, "c2": 0.035, "tau": 0.03}


@dataclasses.dataclass
class Recorded:
    """One recorded run.

    Attributes:
        shares: ``(horizon, n)`` shares that were trained.
        losses: ``(horizon + 1, n)`` losses measured before training and after every period.
        rates: ``(horizon,)`` mean learning rate of each period, fraction of the peak.
        effort: hundreds of optimiser steps in a period.
        labels: what tells the run from others (ratio, schedule, seed, kind).
    """

    shares: np.ndarray
    losses: np.ndarray
    rates: np.ndarray
    effort: float
    labels: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists."""
        data = dataclasses.asdict(self)
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in data.items()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Recorded:
        """Rebuild from `to_json`."""
        arrays = {k: np.array(data[k]) for k in ("shares", "losses", "rates")}
        return cls(**arrays, effort=data["effort"], labels=data["labels"])


def pilot(
    source: np.ndarray, ratio: float, kind: str, horizon: int, rng: np.random.Generator
) -> np.ndarray:
    """Shares of one pilot, ``(horizon, n)``.

    Args:
        source: ``(n,)`` bool; with none or only sources, all domains are treated alike and
            ``ratio`` goes to a random half of them.
        ratio: share of the sources together.
        kind: ``"static"``, ``"switch"`` (to another ratio and split half-way) or ``"uneven"``.
        horizon: number of periods.
        rng: for splits and switches.
    """
    n = len(source)
    if not source.any() or source.all():
        source = np.zeros(n, bool)
        source[rng.permutation(n)[: n // 2]] = True

    def split(share: float, uneven: bool) -> np.ndarray:
        out = np.zeros(n)
        for group, total in ((source, share), (~source, 1 - share)):
            size = int(group.sum())
            out[group] = total * (rng.dirichlet(np.full(size, 2.0)) if uneven else 1 / size)
        return out

    first = split(ratio, kind != "static")
    plan = np.tile(first, (horizon, 1))
    if kind == "switch":
        plan[horizon // 2 :] = split(float(rng.choice([r for r in RATIOS if r != ratio])), True)
    return plan


def pilots(ratios: Iterable[float] = RATIOS, seeds: int = 3) -> list[dict[str, Any]]:
    """The pilot plan of one setting: every ratio x schedule x seed, half of them switching."""
    plan: list[dict[str, Any]] = []
    for ratio in ratios:
        for schedule in SCHEDULES:
            for seed in range(seeds):
                still = ("static", "uneven")[len(plan) // 2 % 2]
                kind = "switch" if len(plan) % 2 else still
                plan.append({"ratio": ratio, "schedule": schedule, "seed": seed, "kind": kind})
    return plan


def record(make: Callable[[str], Any], problem: Any, labels: dict[str, Any]) -> Recorded:
    """Run one pilot on a back end.

    Args:
        make: builds the back end for a learning-rate schedule.
        problem: rounds the shares.
        labels: one entry of `pilots`.
    """
    backend = make(labels["schedule"])
    outcome = backend.reset(np.array([labels["seed"]]))
    memory = problem.begin(outcome)
    inst = outcome.instance
    n = int(inst.present[0].sum())
    horizon = int(inst.horizon[0])
    rng = np.random.default_rng([labels["seed"], int(1000 * labels["ratio"])])
    plan = pilot(inst.source[0, :n], labels["ratio"], labels["kind"], horizon, rng)
    losses, rates, shares = [outcome.losses[0, :n]], [], []
    for row in plan:
        rates.append(float(outcome.lr[0]))
        padded = np.zeros((1, backend.spec.n_max))
        padded[0, :n] = row
        decision = problem.round(padded, memory)
        outcome = backend.spend(decision)
        memory = problem.update(memory, outcome)
        shares.append(decision.fractions[0, :n])
        losses.append(outcome.losses[0, :n])
    backend.close()
    return Recorded(
        np.array(shares), np.array(losses), np.array(rates), float(inst.effort[0]), labels
    )


def predict(traits: dict[str, np.ndarray], source: np.ndarray, runs: list[Recorded]) -> np.ndarray:
    """Predicted losses of every run, ``(runs, horizon + 1, n)``; traits are ``(n,)`` each."""
    n, batch = len(source), len(runs)
    wide = {k: np.repeat(np.asarray(v)[:, None], batch, 1) for k, v in traits.items()}
    model = recorded_law(wide, np.ones((n, batch), bool), SHARED)
    if source.any():
        known = np.repeat(source[:, None], batch, 1)
        model.recent = known / known.sum(0)
    else:
        model.rate_start = np.zeros(batch)
    state = laws.begin(model)
    effort = np.array([run.effort for run in runs])
    rates = np.stack([run.rates for run in runs], 1)
    shares = np.stack([run.shares for run in runs], 2)
    out = [laws.losses(model, state, model.rate_start)]
    for t in range(len(rates)):
        state = laws.advance(model, state, shares[t], effort, rates[t], rates[t])
        out.append(laws.losses(model, state, rates[t]))
    return np.stack(out).transpose(2, 0, 1)


def fit(source: np.ndarray, runs: list[Recorded], starts: int = 2) -> dict[str, np.ndarray]:
    """Fit every domain's traits to the curves of recorded runs of one setting.

    Errors are weighted alike over domains (each divided by the spread of its curves), the change
    from the start counts as much as the level.
    """
    n = len(source)
    real = np.stack([run.losses for run in runs])
    spread = np.maximum(real.std((0, 1)), 0.02)
    # One base model: what it knows at the start is the same in every run, up to the seed.
    low = np.log([BOUNDS[k][0] for k in TRAITS])[:, None].repeat(n, 1)
    high = np.log([BOUNDS[k][1] for k in TRAITS])[:, None].repeat(n, 1)
    if not source.any():
        high[TRAITS.index("start")] = np.log(0.02)
    middle = {
        "floor": 0.6 * real.min((0, 1)), "scale": np.full(n, 0.6), "exponent": np.full(n, 0.5),
        "cross": np.full(n, 0.1), "start": np.where(source, 2.0, 0.05), "forget": np.full(n, 0.3),
        "neglect": np.full(n, 1.0), "rate": np.full(n, 0.03), "recency": np.full(n, 0.03),
    }  # fmt: skip

    def unpack(x: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(TRAITS, np.exp(x.reshape(len(TRAITS), n)), strict=True))

    centre = np.log(np.stack([middle[k] for k in TRAITS]))
    centre = np.clip(centre, low + 1e-3, high - 1e-3)

    def residuals(x: np.ndarray) -> np.ndarray:
        error = (predict(unpack(x), source, runs) - real) / spread
        anchor = 0.05 * (x - centre.ravel())
        return np.concatenate([error.ravel() / np.sqrt(len(runs)), anchor])

    best = None
    rng = np.random.default_rng(0)
    for start in range(starts):
        x0 = centre + (rng.normal(0, 0.3, centre.shape) if start else 0.0)
        x0 = np.clip(x0, low + 1e-3, high - 1e-3)
        found = least_squares(
            residuals, x0.ravel(), bounds=(low.ravel(), high.ravel()), max_nfev=40,
            x_scale="jac",
        )  # fmt: skip
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return unpack(best.x)


def change_r2(
    traits: dict[str, np.ndarray],
    source: np.ndarray,
    runs: list[Recorded],
    fitted_on: list[Recorded],
) -> dict[str, float]:
    """Judge predictions of the *change from the start* at the end of runs not fitted on.

    Beside the law, two naive predictors: the mean change of the fitted runs, and an end-point law
    without memory (linear in the logarithm of each domain's own total share).

    Returns:
        R^2 of each, pooled over domains and runs.
    """
    real = np.stack([r.losses[-1] - r.losses[0] for r in runs])
    known = np.stack([r.losses[-1] - r.losses[0] for r in fitted_on])
    # The loss before training is measured, in a test as in a deployment.
    law = predict(traits, source, runs)[:, -1] - np.stack([r.losses[0] for r in runs])
    x = np.log(np.stack([r.shares.mean(0) for r in fitted_on]) + 0.01)
    z = np.log(np.stack([r.shares.mean(0) for r in runs]) + 0.01)
    static = np.empty_like(real)
    for i in range(real.shape[1]):
        slope, level = np.polyfit(x[:, i], known[:, i], 1)
        static[:, i] = level + slope * z[:, i]
    centred = np.sum((real - real.mean(0)) ** 2)

    def score(predicted: np.ndarray) -> float:
        return float(1 - np.sum((real - predicted) ** 2) / centred)

    return {
        "law": score(law), "mean of fitted runs": score(np.broadcast_to(known.mean(0), real.shape)),
        "end-point law": score(static), "rmse": float(np.sqrt(np.mean((real - law) ** 2))),
    }  # fmt: skip
