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
from allocgym.simulators.data_mixing.families import recorded_law

RATIOS = (0.05, 0.10, 0.25, 0.50, 0.75)
SCHEDULES = ("cosine", "constant", "wsd")
"""Learning-rate schedules of the pilots; the last one gets a single seed: it is held out in the check."""
# Bounds of every trait; E and scale are only weakly identified, which the bounds keep sane.
BOUNDS = {
    "floor": (0.05, 4.0),
    "scale": (0.02, 6.0),
    "exponent": (0.1, 3.0),
    "cross": (1e-3, 0.95),
    "forget": (1e-3, 3.0),
    "neglect": (1e-3, 30.0),
    "rate": (1e-4, 1.0),
    "rewarm": (1e-4, 2.0),
    "recency": (1e-4, 1.5),
}
FITTED = tuple(BOUNDS)
PULL = 0.05
"""Weak pull of every parameter towards the middle of its range: what data cannot tell stays sane."""
SHARED = {"c": 0.005, "c2": 0.035, "tau": 0.03, "tau_z": 0.8, "b": 10}


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
        kind: ``"static"``, ``"switch"`` (to another ratio and split in a random period) or ``"uneven"``.
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
        turn = int(rng.integers(2, horizon - 1))
        plan[turn:] = split(float(rng.choice([r for r in RATIOS if r != ratio])), True)
    return plan


def pilots(ratios: Iterable[float] = RATIOS, seeds: int = 2) -> list[dict[str, Any]]:
    """The pilot plan of one setting: every ratio x schedule x seed, half of them switching."""
    plan: list[dict[str, Any]] = []
    for ratio in ratios:
        for schedule in SCHEDULES:
            for seed in range(1 if schedule == SCHEDULES[-1] else seeds):
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


def begin(
    traits: dict[str, np.ndarray], measured: np.ndarray, recent: np.ndarray, lr: float
) -> np.ndarray:
    """Memory a run must start with to have its measured losses: the law's short form, inverted.

    With ``y_i = p_i + cross_i (P - p_i)`` read off the losses, summing ``p_i = (y_i - cross_i P) /
    (1 - cross_i)`` over domains gives P, and with it every ``p_i = m_i ^ gamma_i``.

    Args:
        traits: ``(n, batch)`` each.
        measured: ``(n, batch)`` losses before training.
        recent: ``(n, batch)`` recent shares before training.
        lr: learning rate before training, fraction of the peak.
    """
    c, cross = SHARED["c"], np.minimum(traits["cross"], 0.98)
    fast = traits["rate"] * lr - traits["recency"] * np.log((recent + c) / (1 + c))
    y = traits["scale"] / np.maximum(measured - fast - traits["floor"], 0.02)
    everything = (y / (1 - cross)).sum(0) / (1 + (cross / (1 - cross)).sum(0))
    power = np.maximum((y - cross * everything) / (1 - cross), 1e-6)
    return np.asarray(np.clip(power ** (1 / traits["exponent"]), 1e-6, 50.0))


def starts_with(
    traits: dict[str, np.ndarray], source: np.ndarray, runs: list[Recorded]
) -> np.ndarray:
    """Memory every run starts with, ``(n, runs)``, by `begin`; traits ``(n, 1)`` or ``(n, runs)``."""
    trained, lr = _before(source)
    recent = np.repeat((trained / trained.sum())[:, None], len(runs), 1)
    return begin(traits, np.stack([r.losses[0] for r in runs], 1), recent, lr)


def _before(source: np.ndarray) -> tuple[np.ndarray, float]:
    """What a base was trained on, and its last learning rate; from scratch: anything, and 0."""
    return (source, 0.1) if source.any() else (np.ones(len(source), bool), 0.0)


def predict(traits: dict[str, np.ndarray], source: np.ndarray, runs: list[Recorded]) -> np.ndarray:
    """Predict the losses of every run.

    Args:
        traits: ``(n,)`` each, or ``(n, sets)`` to predict with many sets of parameters at once.
        source: ``(n,)`` bool, domains the base model was trained on.
        runs: where they start, what they trained and at which rates.

    Returns:
        ``(runs, horizon + 1, n)``, or ``(sets, runs, horizon + 1, n)``.
    """
    n, sets = len(source), next(iter(traits.values())).reshape(len(source), -1).shape[1]
    batch = sets * len(runs)

    def wide(array: np.ndarray) -> np.ndarray:
        return np.tile(array, sets)

    every = {k: np.repeat(np.reshape(v, (n, -1)), len(runs), 1) for k, v in traits.items()}
    trained, lr = _before(source)
    recent = np.repeat((trained / trained.sum())[:, None], batch, 1)
    every["begin"] = begin(every, wide(np.stack([r.losses[0] for r in runs], 1)), recent, lr)
    model = recorded_law(every, np.ones((n, batch), bool), SHARED)
    model.recent, model.rate_start = recent, np.full(batch, lr)
    state = laws.begin(model)
    effort = wide(np.array([run.effort for run in runs]))
    rates = np.stack([run.rates for run in runs], 1)
    shares = np.stack([run.shares for run in runs], 2)
    out = [laws.losses(model, state, model.rate_start)]
    before = model.rate_start
    for share, rate in zip(shares, rates, strict=True):
        now = wide(rate)
        state = laws.advance(model, state, wide(share), effort, now, before)
        out.append(laws.losses(model, state, now))
        before = now
    curves = np.stack(out).transpose(2, 0, 1)
    flat = np.ndim(next(iter(traits.values()))) == 1
    return curves if flat else curves.reshape(sets, len(runs), *curves.shape[1:])


def fit(source: np.ndarray, runs: list[Recorded], starts: int = 2) -> dict[str, np.ndarray]:
    """Fit every domain's traits to the curves of recorded runs of one setting.

    Errors are weighted alike over domains (each divided by the spread of its curves). What a base
    model knows is not fitted: every run starts from its measured losses.
    """
    n = len(source)
    real = np.stack([run.losses for run in runs])
    spread = np.maximum(real.std((0, 1)), 0.02)
    low = np.log([BOUNDS[k][0] for k in FITTED])[:, None].repeat(n, 1)
    high = np.log([BOUNDS[k][1] for k in FITTED])[:, None].repeat(n, 1)
    middle = {
        "floor": 0.6 * real.min((0, 1)),
        "scale": np.full(n, 0.6),
        "exponent": np.full(n, 0.5),
        "cross": np.full(n, 0.1),
        "forget": np.full(n, 0.3),
        "neglect": np.full(n, 1.0),
        "rate": np.full(n, 0.03),
        "rewarm": np.full(n, 0.03),
        "recency": np.full(n, 0.03),
    }

    def unpack(x: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(FITTED, np.exp(x.reshape(len(FITTED), n, *x.shape[1:])), strict=True))

    centre = np.log(np.stack([middle[k] for k in FITTED]))
    centre = np.clip(centre, low + 1e-3, high - 1e-3)

    def residuals(x: np.ndarray) -> np.ndarray:
        error = (predict(unpack(x), source, runs) - real) / spread
        anchor = PULL * (x - centre.ravel())
        return np.concatenate([error.ravel() / np.sqrt(len(runs)), anchor])

    def jacobian(x: np.ndarray) -> np.ndarray:
        # Forward differences, every parameter in one batch.
        step = 1e-6
        moved = predict(unpack(x[:, None] + step * np.eye(len(x), len(x) + 1)), source, runs)
        slopes = (moved[:-1] - moved[-1]) / spread / step
        return np.concatenate([slopes.reshape(len(x), -1).T / np.sqrt(len(runs)), PULL * eye])

    best = None
    eye = np.eye(centre.size)
    rng = np.random.default_rng(0)
    for start in range(starts):
        x0 = centre + (rng.normal(0, 0.3, centre.shape) if start else 0.0)
        x0 = np.clip(x0, low + 1e-3, high - 1e-3)
        found = least_squares(
            residuals,
            x0.ravel(),
            jacobian,
            bounds=(low.ravel(), high.ravel()),
            max_nfev=200,
            x_scale="jac",
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return unpack(best.x)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Changes from the start to the end of runs, each predicted from a fit that had not seen its like.

    Attributes:
        real: ``(runs, n)`` measured changes.
        predicted: the same, by predictor: ``"law"``, ``"mean of fitted runs"``, ``"end-point law"``.
    """

    real: np.ndarray
    predicted: dict[str, np.ndarray]

    def r2(self) -> dict[str, float]:
        """R^2 of each predictor, pooled over domains; the variance is taken around each domain's mean."""
        around = np.sum((self.real - self.real.mean(0)) ** 2)
        return {
            name: float(1 - np.sum((self.real - p) ** 2) / around)
            for name, p in self.predicted.items()
        }


def hold_out(source: np.ndarray, runs: list[Recorded], by: str) -> HeldOut:
    """Hold out each value of a label (a replay ratio, a schedule) in turn, fit the rest, predict it.

    Beside the law, two naive predictors: the mean change of the fitted runs, and an end-point law
    without memory (linear in the logarithm of each domain's own total share).
    """
    real: list[np.ndarray] = []
    predicted: dict[str, list[np.ndarray]] = {}
    for value in sorted({run.labels[by] for run in runs}, key=str):
        left = [run for run in runs if run.labels[by] == value]
        fitted_on = [run for run in runs if run.labels[by] != value]
        traits = fit(source, fitted_on, starts=1)
        # The loss before training is measured, in a test as in a deployment.
        start = np.stack([run.losses[0] for run in left])
        known = _changes(fitted_on)
        each = {
            "law": predict(traits, source, left)[:, -1] - start,
            "mean of fitted runs": np.broadcast_to(known.mean(0), start.shape),
            "end-point law": _end_points(fitted_on, known, left),
        }
        real.append(_changes(left))
        for name, guess in each.items():
            predicted.setdefault(name, []).append(guess)
    return HeldOut(np.concatenate(real), {k: np.concatenate(v) for k, v in predicted.items()})


def _changes(runs: list[Recorded]) -> np.ndarray:
    return np.stack([run.losses[-1] - run.losses[0] for run in runs])


def _end_points(fitted_on: list[Recorded], known: np.ndarray, left: list[Recorded]) -> np.ndarray:
    x, z = (np.log(np.stack([r.shares.mean(0) for r in rs]) + 0.01) for rs in (fitted_on, left))
    lines = [np.polyfit(x[:, i], known[:, i], 1) for i in range(known.shape[1])]
    return np.stack([np.polyval(line, z[:, i]) for i, line in enumerate(lines)], 1)
