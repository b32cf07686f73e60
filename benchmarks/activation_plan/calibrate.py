"""``python -m allocgym.benchmarks.activation_plan.calibrate``: profiles of real training steps.

Measures pilot plans of each model on this machine and writes ``activation_<model>.json``; the package
ships the ones of the machine that its results were measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from allocgym.envs.core.journal import write_json
from allocgym.real_backend.activation_plan.calibration import calibrate
from allocgym.simulators.activation_plan.backend import RECORDED


def record(out: Path, models: list[str], repeats: int = 3, device: str = "cpu") -> None:
    """Calibrate models and write their profiles."""
    out.mkdir(parents=True, exist_ok=True)
    for model in models:
        profile = calibrate(model, repeats, device=device)
        profile["source"] = "own runs: python -m allocgym.benchmarks.activation_plan.calibrate"
        write_json(out / f"activation_{model}.json", profile)
        print(model, profile["fit"])


def main() -> None:
    """Calibrate from the shell."""
    parser = argparse.ArgumentParser(description="profiles of real training steps")
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    parser.add_argument("--models", default=",".join(RECORDED))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cuda has not been run)")
    given = parser.parse_args()
    record(given.out, given.models.split(","), given.repeats, given.device)


if __name__ == "__main__":
    main()
