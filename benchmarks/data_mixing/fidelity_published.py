"""Fidelity to published data: do our fits and laws return the numbers that are in the papers?"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.simulators.core import public_data
from allocgym.simulators.data_mixing import published, regmix
from allocgym.simulators.data_mixing.families import read_fit

CMR_PERCENT = {"460M": 29.8, "940M": 34.9, "1.6B": 41.4, "3.1B": 47.8}
"""Critical mixture ratio at 20B tokens, % (CMR scaling law, table 5, finance domain)."""
NEEDED = (regmix.FOLDER, "mixing/doremi")


def figures(refit: bool = True) -> list[dict[str, Any]]:
    """Compute every figure of this suite.

    Args:
        refit: fit RegMix again from the data, so that the figures do not rest on a committed file
            (2 s on one thread; 40 s where BLAS threads fight over two busy cores); otherwise score
            the committed fit. ``detail`` says which.

    Returns:
        One dict a figure: ``name``, ``value`` (NaN where skipped), ``target``, ``met`` (None where
        the public data is missing), ``kind`` (``"must"`` or ``"aim"``) and ``detail``.
    """
    return [*_regmix(refit), *_critical_ratios(), _replay(), _domain_share()]


def _figure(name: str, value: float, target: str, met: bool | None, detail: str) -> dict[str, Any]:
    return {
        "name": name, "value": float(value), "target": target, "met": met, "kind": "must",
        "detail": detail,
    }  # fmt: skip


def _regmix(refit: bool) -> list[dict[str, Any]]:
    names = ("RegMix 1M, mean held-out R2", "RegMix, least Spearman to 60M")
    targets = (">= 0.96", ">= 0.9")
    missing = [folder for folder in NEEDED if not public_data.available(folder)]
    if missing:
        why = f"skipped: {', '.join(missing)} not available; set {public_data.VARIABLE}"
        return [_figure(n, np.nan, t, None, why) for n, t in zip(names, targets, strict=True)]
    fitted = regmix.fit() if refit else read_fit("regmix_1m")
    which = "refitted now" if refit else "committed fit"
    r2 = np.array(regmix.scores(fitted, "test_1m")["R2"])
    rank = np.array(regmix.scores(fitted, "test_60m")["Spearman"])
    real = _real_rank(fitted["targets"])
    worst, last = fitted["targets"][r2.argmin()], fitted["targets"][rank.argmin()]
    return [
        _figure(
            names[0], r2.mean(), targets[0], bool(r2.mean() >= 0.96),
            f"{which}; 13 domains, 256 mixtures; least {r2.min():.3f} ({worst})",
        ),
        _figure(
            names[1], rank.min(), targets[1], bool((rank >= 0.9).all()),
            f"{which}; least at {last}; the real 1M runs themselves reach {real.min():.3f}",
        ),
    ]  # fmt: skip


def _real_rank(targets: list[str]) -> np.ndarray:
    """Spearman of the real 1M losses with the real 60M ones: what a perfect fit would reach."""
    from scipy.stats import spearmanr

    small, large = regmix.table("test_1m")[1], regmix.table("test_60m")[1]
    return np.array([spearmanr(small[name], large[name])[0] for name in targets])


def _critical_ratios() -> list[dict[str, Any]]:
    found = {size: 100 * published.critical_mixture_ratio(size, 100) for size in CMR_PERCENT}
    return [
        _figure(
            f"CMR {size} at 20B tokens, %", found[size], f"{paper} +- 0.1",
            abs(found[size] - paper) <= 0.1, "table 5, T = 100 periods of 0.2B tokens",
        )
        for size, paper in CMR_PERCENT.items()
    ]  # fmt: skip


def _replay() -> dict[str, Any]:
    value = published.LeakyMemory().critical_replay(10)
    return _figure(
        "critical replay at 10B tokens", value, "0.285 +- 0.02", abs(value - 0.285) <= 0.02,
        "smallest constant replay with no loss of general ability",
    )  # fmt: skip


def _domain_share() -> dict[str, Any]:
    table = published.D_CPT_USAGE_1
    value = published.largest_domain_share(
        np.array(table["domain share"]),
        np.array(table["general loss"]),
        float(np.array(table["general loss before"])),
    )
    return _figure(
        "D-CPT, largest domain share within 3 %", value, "0.924", value == 0.924, "usage 1"
    )
