"""Fits the additive power law of mixtures to the public RegMix runs.

``L_i(h) = E_i + 1 / sum_j C_ij (h_j + m0)^gamma_ij`` (form of Shukor et al. 2025, arXiv 2507.09404), one
fit per validation domain on the 512 training mixtures at 1M parameters, checked on 256 others.

``python -m allocgym.simulators.data_mixing.regmix`` refits and rewrites ``fits/regmix_1m.json``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.stats import spearmanr

from allocgym.envs.core.journal import write_json
from allocgym.simulators.core import public_data

FOLDER = "mixing/regmix"
OFFSET = 0.002
"""m0, part of the law: tables are rounded to .001, and a law without it has no start."""
GAMMA = (0.05, 3.0)


def table(split: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read ``"train_1m"``, ``"test_1m"`` or ``"test_60m"``: mixtures (rows sum to 1) and losses.

    Raises:
        DataMissingError: the public data is not on this machine.
    """
    part, size = split.split("_")
    mixtures = pd.read_csv(public_data.path(f"{FOLDER}/{part}_mixture_{size}.csv"))
    losses = pd.read_csv(public_data.path(f"{FOLDER}/{part}_pile_loss_{size}.csv"))
    joined = mixtures.merge(losses, on="index")
    h = joined[[c for c in mixtures if c != "index"]]
    h = h.div(h.sum(axis=1), axis=0).rename(columns=lambda c: str(c).replace("train_the_pile_", ""))
    y = joined[[c for c in losses if str(c).startswith("metric/")]]
    names = {c: str(c).replace("metric/the_pile_", "").replace("_val_loss", "") for c in y}
    return h, y.rename(columns=names)


def power_mix(h: np.ndarray, floor: float, gain: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """The law for one domain: ``(runs, n)`` shares to ``(runs,)`` losses."""
    return np.asarray(floor + 1 / ((h + OFFSET) ** exponent @ gain))


def fit_one(h: np.ndarray, y: np.ndarray, own: int, starts: int = 3) -> tuple[float, Any, Any]:
    """Fit E, C and gamma of one domain by least squares, best of several starts.

    A weak pull of log C and gamma towards the middle keeps what the data cannot identify sane.
    """
    n = h.shape[1]
    log_h = np.log(h + OFFSET)
    low, high = GAMMA
    pull = 0.01

    def unpack(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        return x[0], np.exp(x[1 : n + 1]), x[n + 1 :]

    def residuals(x: np.ndarray) -> np.ndarray:
        floor, gain, exponent = unpack(x)
        fitted = floor + 1 / (np.exp(exponent * log_h) @ gain)
        return np.concatenate([fitted - y, pull * (x[1 : n + 1] + 3), pull * (exponent - 0.5)])

    def jacobian(x: np.ndarray) -> np.ndarray:
        _, gain, exponent = unpack(x)
        terms = np.exp(exponent * log_h) * gain
        slope = -1 / terms.sum(1, keepdims=True) ** 2
        top = np.concatenate([np.ones((len(y), 1)), slope * terms, slope * terms * log_h], 1)
        bottom = np.zeros((2 * n, 2 * n + 1))
        bottom[:, 1:] = pull * np.eye(2 * n)
        return np.concatenate([top, bottom])

    lower = np.concatenate([[0.0], np.full(n, -12.0), np.full(n, low)])
    upper = np.concatenate([[y.min()], np.full(n, 6.0), np.full(n, high)])
    best = None
    rng = np.random.default_rng(own)
    for _ in range(starts):
        x0 = np.concatenate([[0.7 * y.min()], rng.normal(-2.5, 0.5, n), rng.uniform(0.2, 0.8, n)])
        x0[1 + own] = 0.0
        found = least_squares(residuals, x0, jacobian, (lower, upper), max_nfev=300)
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    return unpack(best.x)


def r_squared(real: np.ndarray, predicted: np.ndarray) -> float:
    """Coefficient of determination."""
    return float(1 - np.sum((real - predicted) ** 2) / np.sum((real - real.mean()) ** 2))


def natural_shares(domains: list[str]) -> list[float]:
    """The Pile's own shares (DoReMi's baseline), renormalised over RegMix's 17 domains."""
    file = public_data.path("mixing/doremi/pile_baseline_50kvocab.json")
    raw = json.loads(file.read_text())
    weights = raw.get("train_domain_weights", raw)
    plain = {"".join(ch for ch in k.lower() if ch.isalnum()): float(v) for k, v in weights.items()}

    def lookup(name: str) -> float:
        key = "".join(ch for ch in name if ch.isalnum())
        return plain.get(key, plain.get(f"{key}en", min(plain.values())))

    shares = np.array([lookup(name) for name in domains])
    return [round(float(s), 6) for s in shares / shares.sum()]


def fit() -> dict[str, Any]:
    """Fit all domains and check them on the held-out mixtures."""
    h, y = table("train_1m")
    domains, targets = [str(c) for c in h], [str(c) for c in y]
    result: dict[str, Any] = {
        "source": "RegMix, github.com/sail-sg/regmix @ b004d3a (MIT), train_1m: 512 mixtures",
        "unit": "nats per token; memory in fractions of the fitted 1B-token run",
        "offset": OFFSET,
        "domains": domains,
        "targets": targets,
        "prior": natural_shares(domains),
        "E": [],
        "C": [],
        "gamma": [],
    }
    for name in targets:
        floor, gain, exponent = fit_one(h.to_numpy(), y[name].to_numpy(), domains.index(name))
        result["E"].append(round(float(floor), 6))
        result["C"].append([round(float(v), 7) for v in gain])
        result["gamma"].append([round(float(v), 6) for v in exponent])
    result["fit R2"] = scores(result, "train_1m")["R2"]
    held = scores(result, "test_1m")
    result["held-out R2"] = held["R2"]
    result["Spearman to 60M"] = scores(result, "test_60m")["Spearman"]
    return result


def predict(fitted: dict[str, Any], h: np.ndarray) -> np.ndarray:
    """Losses of all targets for ``(runs, 17)`` mixtures."""
    rows = [
        power_mix(h, e, np.array(c), np.array(g))
        for e, c, g in zip(fitted["E"], fitted["C"], fitted["gamma"], strict=True)
    ]
    return np.stack(rows, 1)


def scores(fitted: dict[str, Any], split: str) -> dict[str, list[float]]:
    """R^2 and Spearman rank correlation per target on a split."""
    h, y = table(split)
    predicted = predict(fitted, h.to_numpy())
    real = y[fitted["targets"]].to_numpy()
    columns = range(real.shape[1])
    return {
        "R2": [round(r_squared(real[:, i], predicted[:, i]), 4) for i in columns],
        "Spearman": [round(float(spearmanr(real[:, i], predicted[:, i])[0]), 4) for i in columns],
    }


def main() -> None:
    """Refit and write the parameters beside this file."""
    fitted = fit()
    write_json(Path(__file__).parent / "fits" / "regmix_1m.json", fitted)
    print("held-out R2", fitted["held-out R2"], "mean", np.mean(fitted["held-out R2"]))
    print("Spearman to 60M", fitted["Spearman to 60M"])


if __name__ == "__main__":
    main()
