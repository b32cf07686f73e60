"""``--suite fidelity``: published figures, public runs, and our own runs the fits have not seen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish
from allocgym.benchmarks.data_mixing import calibrate
from allocgym.simulators.core import public_data
from allocgym.simulators.data_mixing import published, regmix
from allocgym.simulators.data_mixing.families import read_fit

CMR_PERCENT = {"460M": 29.8, "940M": 34.9, "1.6B": 41.4, "3.1B": 47.8}


def published_figures() -> list[Figure]:
    """Anchors that need no data."""
    figures = []
    for size, percent in CMR_PERCENT.items():
        value = 100 * published.critical_mixture_ratio(size, 100)
        figures.append(
            Figure(
                f"CMR table 5, {size}, T = 100 (%)",
                round(value, 2),
                f"{percent} +- 0.1",
                abs(value - percent) <= 0.1,
            )
        )
    critical = published.LeakyMemory().critical_replay(10.0)
    figures.append(
        Figure(
            "leaky memory: critical replay at 10B tokens",
            round(critical, 4),
            "0.285 +- 0.02",
            abs(critical - 0.285) <= 0.02,
        )
    )
    table: dict[str, Any] = published.D_CPT_USAGE_1
    share = published.largest_domain_share(
        table["domain share"], table["general loss"], table["general loss before"]
    )
    figures.append(Figure("D-CPT usage 1: largest share", share, "0.924", share == 0.924))
    return figures


def regmix_figures() -> list[Figure]:
    """The committed RegMix fit on mixtures and sizes it was not fitted on."""
    names = ("RegMix 1M, 256 held-out mixtures: mean R2", "RegMix: lowest Spearman to 60M")
    if not public_data.available(regmix.FOLDER):
        why = f"skipped: set {public_data.VARIABLE}"
        return [
            Figure(n, None, t, None, detail=why)
            for n, t in zip(names, (">= 0.96", ">= 0.9"), strict=True)
        ]
    fitted = read_fit("regmix_1m")
    r2 = regmix.scores(fitted, "test_1m")["R2"]
    rank = regmix.scores(fitted, "test_60m")["Spearman"]
    mean = float(np.mean(r2))
    return [
        Figure(
            names[0],
            round(mean, 4),
            ">= 0.96",
            mean >= 0.96,
            detail=f"{min(r2):.3f} to {max(r2):.3f} over {len(r2)} domains",
        ),
        Figure(names[1], min(rank), ">= 0.9", min(rank) >= 0.9),
    ]


def recorded_figures(folder: Path, quick: bool) -> list[Figure]:
    """Our own runs: fit without a ratio or a schedule, predict what was left out."""
    seeds = 2
    console.print(
        "recording pilots of the real back end (about ten minutes the first time; cached in "
        f"{folder})"
    )
    if quick:
        return [
            Figure(
                "own runs, held out: R2 of the change from start",
                None,
                ">= 0.7, above naive",
                None,
                detail="needs recorded pilots: run without --quick",
            )
        ]
    checks = calibrate.check_held_out(calibrate.recorded_runs(folder, 2, seeds))
    figures = []
    for by in calibrate.HELD_OUT:
        mean = calibrate.pooled(checks, by)
        naive = max(v for k, v in mean.items() if k != "law")
        each = {name: check[by].r2() for name, check in checks.items()}
        beside = (
            f"mean of runs {mean['mean of fitted runs']:.2f}, end-point {mean['end-point law']:.2f}"
        )
        figures += [
            Figure(
                f"own runs, held-out {by}: R2 of the change, pooled",
                round(mean["law"], 4),
                ">= 0.7",
                mean["law"] >= 0.7,
                detail=", ".join(f"{n} {r['law']:.2f}" for n, r in each.items()),
            ),
            Figure(
                f"own runs, held-out {by}: ahead of naive predictors",
                round(mean["law"] - naive, 4),
                "> 0",
                mean["law"] > naive,
                detail=beside,
            ),
            Figure(
                f"own runs, held-out {by}: settings in which the law leads",
                f"{sum(max(r, key=lambda k: r[k]) == 'law' for r in each.values())}/{len(each)}",
                "reported",
                None,
                "aim",
                "end-point law: "
                + ", ".join(f"{n} {r['end-point law']:.2f}" for n, r in each.items()),
            ),
        ]
    return figures


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    folder = (options.out or Path("runs")) / "calibration"
    figures = published_figures() + regmix_figures() + recorded_figures(folder, options.quick)
    return finish("fidelity", figures, {}, begun, options)
