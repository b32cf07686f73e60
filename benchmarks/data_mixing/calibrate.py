"""``allocgym calibrate data-mixing``: record pilots of the real back end, fit the law, check it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.benchmarks.core.suite import console, run_cells
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.journal import write_json
from allocgym.simulators.data_mixing import calibration
from allocgym.simulators.data_mixing.calibration import HeldOut, Recorded
from allocgym.simulators.data_mixing.families import TRAITS

# Domains that inform the fits; the domains of the real suite's tests are others. Targets that share
# much with their sources and targets that share nothing, which fall by tenths and by bits.
_CONTINUAL = {
    "code": ("prose", "arithmetic"),
    "sql": ("c-headers", "modular"),
    "dyck": ("sql", "c-headers"),
}
SETTINGS: dict[str, dict[str, Any]] = {
    target: {"domains": [*source, target], "source": list(source), "base_seed": None}
    for target, source in _CONTINUAL.items()
}
SETTINGS["scratch"] = {"domains": ["prose", "code", "arithmetic", "json"], "source": []}
HELD_OUT = ("ratio", "schedule")


def pilot_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Record one pilot."""
    problem: Any = make_problem("data-mixing")
    setting = cell["setting"]
    scenario = "continual-pretraining" if setting["source"] else "scratch"

    def make(schedule: str) -> Any:
        return make_backend(problem, "real", scenario=scenario, schedule=schedule, **setting)

    return calibration.record(make, problem, cell["labels"]).to_json()


def recorded_runs(folder: Path, processes: int, seeds: int) -> dict[str, list[Recorded]]:
    """Record (or read back) the pilots of every setting."""
    out = {}
    for name in SETTINGS:
        cells = [{"setting": SETTINGS[name], "labels": p} for p in calibration.pilots(seeds=seeds)]
        # The first of each seed builds and caches the base model that the others share.
        run_cells(cells[:seeds], pilot_cell, folder / "pilots", processes)
        runs = run_cells(cells, pilot_cell, folder / "pilots", processes)
        out[name] = [Recorded.from_json(r) for r in runs]
        console.print(f"{name}: {len(out[name])} pilots recorded")
    return out


def is_source(name: str) -> np.ndarray:
    """``(n,)`` bool: which domains of a setting are sources."""
    setting = SETTINGS[name]
    return np.array([d in setting["source"] for d in setting["domains"]])


def check_held_out(runs: dict[str, list[Recorded]]) -> dict[str, dict[str, HeldOut]]:
    """Predict every run from fits that had not seen its replay ratio, or its schedule."""
    return {
        name: {by: calibration.hold_out(is_source(name), recorded, by) for by in HELD_OUT}
        for name, recorded in runs.items()
    }


def pooled(checks: dict[str, dict[str, HeldOut]], by: str) -> dict[str, float]:
    """R^2 of each predictor over the domains and runs of all settings, each around its own mean."""
    whole = [check[by] for check in checks.values()]
    around = sum(np.sum((c.real - c.real.mean(0)) ** 2) for c in whole)
    return {
        name: float(1 - sum(np.sum((c.real - c.predicted[name]) ** 2) for c in whole) / around)
        for name in whole[0].predicted
    }


def calibrate(out: Path, processes: int = 2, seeds: int = 2) -> None:
    """Record, fit, check, and write ``recorded.json`` (parameters) and ``held_out.json``."""
    begun = time.time()
    runs = recorded_runs(out, processes, seeds)
    domains = []
    for name, recorded in runs.items():
        source = is_source(name)
        traits = calibration.fit(source, recorded)
        wide = {k: v[:, None] for k, v in traits.items()}
        begins = calibration.starts_with(wide, source, recorded)
        traits["begin"] = np.exp(np.log(begins).mean(1))
        for j, domain in enumerate(SETTINGS[name]["domains"]):
            role = "scratch" if not source.any() else "source" if source[j] else "target"
            values = {k: round(float(traits[k][j]), 6) for k in TRAITS}
            domains.append({"name": domain, "setting": name, "role": role, **values})
        error = calibration.predict(traits, source, recorded) - np.stack(
            [r.losses for r in recorded]
        )
        console.print(f"{name}: fitted, rmse {np.sqrt(np.mean(error**2)):.4f} bits per byte")
    held = check_held_out(runs)
    checks = {
        name: {by: {k: round(v, 4) for k, v in one.r2().items()} for by, one in each.items()}
        for name, each in held.items()
    }
    console.print(json.dumps(checks, indent=1))
    write_json(
        out / "recorded.json",
        {
            "source": "recorded runs of the real back end (allocgym calibrate data-mixing)",
            "pilots per setting": len(next(iter(runs.values()))),
            "held-out R2 of the change from start": checks,
            "shared": calibration.SHARED,
            "domains": domains,
        },
    )
    compact = {k: [r.to_json() for r in v] for k, v in runs.items()}
    write_json(out / "pilots.json", compact)
    console.print(f"{time.time() - begun:.0f} s; written to {out / 'recorded.json'}")
