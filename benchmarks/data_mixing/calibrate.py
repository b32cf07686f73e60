"""``allocgym calibrate data-mixing``: record pilots of the real back end, fit the law, check it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.benchmarks.core.suite import console, run_cells
from allocgym.envs.core.journal import write_json
from allocgym.envs.core.registry import make_backend, make_problem
from allocgym.simulators.data_mixing import calibration
from allocgym.simulators.data_mixing.calibration import Recorded
from allocgym.simulators.data_mixing.families import TRAITS

# Domains that inform the fits; the domains of the real suite's tests are others.
SETTINGS: dict[str, dict[str, Any]] = {
    "code": {"domains": ["prose", "arithmetic", "code"], "source": ["prose", "arithmetic"]},
    "prose": {"domains": ["code", "arithmetic", "prose"], "source": ["code", "arithmetic"]},
    "scratch": {"domains": ["prose", "code", "arithmetic", "json"], "source": []},
}
HELD_OUT_RATIO = 0.25
HELD_OUT_SCHEDULE = "constant"


def pilot_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Record one pilot."""
    problem: Any = make_problem("data-mixing")
    setting = dict(SETTINGS[cell["setting"]])
    scenario = "continual-pretraining" if setting["source"] else "scratch"

    def make(schedule: str) -> Any:
        return make_backend(problem, "real", scenario=scenario, schedule=schedule, **setting)

    return calibration.record(make, problem, cell["labels"]).to_json()


def recorded_runs(folder: Path, processes: int, seeds: int) -> dict[str, list[Recorded]]:
    """Record (or read back) the pilots of every setting."""
    out = {}
    for name in SETTINGS:
        cells = [{"setting": name, "labels": p} for p in calibration.pilots(seeds=seeds)]
        # The first builds and caches the base model that the others share.
        first = run_cells(cells[:1], pilot_cell, folder / "pilots", 1)
        rest = run_cells(cells[1:], pilot_cell, folder / "pilots", processes)
        out[name] = [Recorded.from_json(r) for r in first + rest]
        console.print(f"{name}: {len(out[name])} pilots recorded")
    return out


def is_source(name: str) -> np.ndarray:
    """``(n,)`` bool: which domains of a setting are sources."""
    setting = SETTINGS[name]
    return np.array([d in setting["source"] for d in setting["domains"]])


def held_out(runs: list[Recorded], by: str) -> tuple[list[Recorded], list[Recorded]]:
    """Split runs into fitted and held out, by ``"ratio"`` or ``"schedule"``."""
    value = HELD_OUT_RATIO if by == "ratio" else HELD_OUT_SCHEDULE
    return (
        [r for r in runs if r.labels[by] != value],
        [r for r in runs if r.labels[by] == value],
    )


def check_held_out(runs: dict[str, list[Recorded]]) -> dict[str, dict[str, dict[str, float]]]:
    """Fit without a ratio (and without a schedule), predict the runs left out."""
    report: dict[str, dict[str, dict[str, float]]] = {}
    for name, recorded in runs.items():
        report[name] = {}
        for by in ("ratio", "schedule"):
            fitted_on, left = held_out(recorded, by)
            traits = calibration.fit(is_source(name), fitted_on, starts=1)
            report[name][by] = {
                k: round(v, 4)
                for k, v in calibration.change_r2(traits, is_source(name), left, fitted_on).items()
            }
    return report


def calibrate(out: Path, processes: int = 2, seeds: int = 3) -> None:
    """Record, fit, check, and write ``recorded.json`` (parameters) and ``held_out.json``."""
    begun = time.time()
    runs = recorded_runs(out, processes, seeds)
    domains = []
    for name, recorded in runs.items():
        traits = calibration.fit(is_source(name), recorded)
        source = is_source(name)
        for j, domain in enumerate(SETTINGS[name]["domains"]):
            role = "scratch" if not source.any() else "source" if source[j] else "target"
            values = {k: round(float(traits[k][j]), 6) for k in TRAITS}
            domains.append({"name": domain, "setting": name, "role": role, **values})
        error = calibration.predict(traits, source, recorded) - np.stack(
            [r.losses for r in recorded]
        )
        console.print(f"{name}: fitted, rmse {np.sqrt(np.mean(error**2)):.4f} bits per byte")
    checks = check_held_out(runs)
    console.print(json.dumps(checks, indent=1))
    write_json(
        out / "recorded.json",
        {
            "source": "recorded runs of the real back end (allocgym calibrate data-mixing)",
            "pilots per setting": len(next(iter(runs.values()))),
            "held-out R2 of the change from start": checks,
            "shared": calibration.SHARED, "domains": domains,
        },
    )  # fmt: skip
    compact = {k: [r.to_json() for r in v] for k, v in runs.items()}
    write_json(out / "pilots.json", compact)
    console.print(f"{time.time() - begun:.0f} s; written to {out / 'recorded.json'}")
