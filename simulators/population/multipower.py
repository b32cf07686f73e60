"""The Multi-Power Law of learning-rate schedules, and its fits to public language-model curves.

``L(t) = L0 + A S_1(t)^-alpha - B sum_k (eta_{k-1} - eta_k) G(eta_k^-gamma S_k(t))``,
``G(x) = 1 - (1 + C x)^-beta``, ``S_1`` the sum of all learning rates so far, ``S_k`` their sum from
step k on (Luo et al. 2025, arXiv 2503.12811, eqs. 1 to 3). Rises of the rate during warm-up are terms
of the sum too; left out, every prediction is off by a tenth of a nat.

``python -m allocgym.simulators.population.multipower`` fits each model size on three schedules and
rewrites ``fits/multipower.json`` with the error on all nine.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares

from allocgym.envs.core.errors import unknown
from allocgym.envs.core.journal import write_json
from allocgym.simulators.core import public_data

FOLDER = "population/mpl_loss_curves"
PEAK, LEAST, WARMUP = 3e-4, 3e-5, 2160
FITTED_ON = ("cosine_24000", "constant_24000", "wsdcon_9")
NAMES = ("floor", "scale", "alpha", "drop", "rate", "beta", "gamma")
START = (3.0, 0.55, 0.46, 400.0, 2.07, 0.59, 0.645)
"""Where the published fits of three sizes lie, rounded."""
PULL = np.array([0.003, 0.003, 0.003, 0.3, 0.3, 0.3, 0.3])
"""Pull of each log parameter towards `START`. Three curves cannot tell the four of the last term apart,
and left free they fit them and miss the longest run; published, they hardly move between sizes."""
BLOCK = 16
"""Steps of a decaying rate that are taken together while fitting."""


@dataclasses.dataclass(frozen=True)
class MultiPower:
    """Parameters: L0, A, alpha, B, C, beta, gamma in that order."""

    floor: float
    scale: float
    alpha: float
    drop: float
    rate: float
    beta: float
    gamma: float

    def loss(self, rates: np.ndarray, at: np.ndarray, block: int = 1) -> np.ndarray:
        """Predict losses under a schedule.

        Args:
            rates: ``(steps,)`` learning rate of every step, warm-up included; the first may be 0.
            at: ``(points,)`` steps at which to predict, > 0.
            block: consecutive changes of the rate that are treated as one.

        Returns:
            ``(points,)`` nats per token.
        """
        total = np.concatenate([[0.0], np.cumsum(rates)])
        changed = np.flatnonzero(np.diff(rates) != 0) + 1
        if block > 1 and len(changed):
            # Blocks of changes; a lone jump stays where it is.
            changed = (
                changed[np.diff(changed, prepend=-2) > 1].tolist()
                + changed[block - 1 :: block].tolist()
            )
            changed = np.unique(changed)
        before = np.concatenate([[rates[0]], rates[changed]])[:-1]
        fall, now = before - rates[changed], rates[changed]
        since = total[at][:, None] - total[changed]
        x = np.maximum(since, 0.0) * np.maximum(now, 1e-12) ** -self.gamma
        response = 1 - (1 + self.rate * x) ** -self.beta
        return np.asarray(
            self.floor + self.scale * total[at] ** -self.alpha - self.drop * (response @ fall)
        )


def schedule(name: str, steps: int) -> np.ndarray:
    """Learning rates of a public run, ``(steps,)``, by the name of its file.

    ``cosine_T``, ``constant_T``, ``wsd_H_T`` (exponential decay after H), ``wsdld_H_T`` (linear decay),
    ``wsdcon_K`` (a step to K x 1e-5 at 8,000).

    Raises:
        AllocgymError: no schedule of that name.
    """
    kind, *numbers = name.split("_")
    t = np.arange(steps, dtype=float)
    ramp = np.minimum(t / WARMUP, 1.0) * PEAK
    if kind == "constant":
        return ramp
    if kind == "cosine":
        x = np.clip((t - WARMUP) / (int(numbers[0]) - WARMUP), 0, 1)
        return np.where(t < WARMUP, ramp, LEAST + (PEAK - LEAST) * (1 + np.cos(np.pi * x)) / 2)
    if kind in ("wsd", "wsdld"):
        x = np.clip((t - int(numbers[0])) / (int(numbers[1]) - int(numbers[0])), 0, 1)
        fall = PEAK * (LEAST / PEAK) ** x if kind == "wsd" else PEAK + (LEAST - PEAK) * x
        return np.minimum(ramp, fall)
    if kind == "wsdcon":
        return np.where(t < 8000, ramp, int(numbers[0]) * 1e-5)
    raise unknown("schedule", name, ("cosine_T", "constant_T", "wsd_H_T", "wsdld_H_T", "wsdcon_K"))


def curve(size: str, name: str) -> pd.DataFrame:
    """Read a public run: columns step, lr, loss."""
    return pd.read_csv(public_data.path(f"{FOLDER}/csv_{size}/{name}.csv"))


def curves(size: str) -> list[str]:
    """Names of the public runs of a model size (such as ``"25"``)."""
    return sorted(p.stem for p in public_data.path(f"{FOLDER}/csv_{size}").glob("*.csv"))


def sizes() -> list[str]:
    """Model sizes that are on this machine, millions of parameters."""
    return sorted(
        (p.name.removeprefix("csv_") for p in public_data.path(FOLDER).glob("csv_*")), key=int
    )


def fit(size: str, names: Iterable[str] = FITTED_ON) -> MultiPower:
    """Fit a model size by robust least squares on log losses (soft L1, as the paper's Huber loss)."""
    data = [(schedule(n, int(c.step.max()) + 1), c) for n in names if len(c := curve(size, n))]

    def residuals(x: np.ndarray) -> np.ndarray:
        law = MultiPower(*np.exp(x))
        errors = []
        for rates, c in data:
            at, real = c.step.to_numpy(), c.loss.to_numpy()
            error = np.log(np.maximum(law.loss(rates, at, BLOCK), 1e-3)) - np.log(real)
            errors.append(error)
        return np.concatenate([*errors, PULL * (x - start)])

    start = np.log(START)
    found = least_squares(
        residuals,
        start,
        loss="soft_l1",
        f_scale=1e-3,
        x_scale="jac",
        max_nfev=300,
        bounds=(start - 3, start + 3),
    )
    return MultiPower(*(float(v) for v in np.exp(found.x)))


def errors(law: MultiPower, size: str) -> dict[str, float]:
    """Mean absolute error on every public run of a size, nats per token."""
    out = {}
    for name in curves(size):
        c = curve(size, name)
        predicted = law.loss(schedule(name, int(c.step.max()) + 1), c.step.to_numpy())
        out[name] = round(float(np.mean(np.abs(predicted - c.loss.to_numpy()))), 5)
    return out


@functools.cache
def fitted() -> dict[str, MultiPower]:
    """The committed fits by model size."""
    file = resources.files("allocgym.simulators.population") / "fits" / "multipower.json"
    data = json.loads(file.read_text())
    return {size: MultiPower(**entry["parameters"]) for size, entry in data["sizes"].items()}


def main() -> None:
    """Refit every size on this machine and write the parameters beside this file."""
    found = {}
    for size in sizes():
        law = fit(size)
        error = errors(law, size)
        held = [v for k, v in error.items() if k not in FITTED_ON]
        parameters = {k: round(v, 6) for k, v in dataclasses.asdict(law).items()}
        found[size] = {
            "parameters": parameters,
            "mean absolute error": error,
            "held-out mean absolute error": round(float(np.mean(held)), 5),
        }
        print(size, parameters, error)
    write_json(
        Path(__file__).parent / "fits" / "multipower.json",
        {
            "source": "github.com/thu-yao-01-luo/MultiPowerLaw @ 8da9f19 (MIT): loss curves",
            "unit": "nats per token; sizes in millions of parameters",
            "fitted on": list(FITTED_ON),
            "sizes": found,
        },
    )


if __name__ == "__main__":
    main()
