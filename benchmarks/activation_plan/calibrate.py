"""``allocgym calibrate activation-plan``: profiles of real training steps.

Measures pilot plans of each model on this machine and writes ``<model>.json``; the package ships the
ones of the machine that its results were measured on.
"""

from __future__ import annotations

from pathlib import Path

from allocgym.benchmarks.core.suite import console
from allocgym.envs.core.journal import write_json
from allocgym.real_backend.activation_plan.calibration import calibrate as fitted
from allocgym.simulators.activation_plan.scenario import RECORDED


def calibrate(out: Path, processes: int, seeds: int) -> None:
    """Calibrate every recorded model, one process at a time for the sake of the timings.

    Args:
        out: folder.
        processes: not used.
        seeds: steps measured of each plan, at least 2.
    """
    out.mkdir(parents=True, exist_ok=True)
    for model in RECORDED:
        profile = fitted(model, max(seeds, 2))
        profile["source"] = "own runs: allocgym calibrate activation-plan"
        write_json(out / f"{model}.json", profile)
        console.print(model, profile["fit"])
