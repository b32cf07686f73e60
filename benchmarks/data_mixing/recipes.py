"""``--suite recipes``: how to train agents for real runs, chosen on domains that informed the fits.

The real suite judges agents on domains nobody has looked at; what is decided before (how wide the
training distribution is, what a change of mixture costs) is decided here, on the domains of the
pilots, with other base models and other seeds.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.core.training import train
from allocgym.agents.data_mixing.training import FOR_REAL_RUNS
from allocgym.benchmarks.core.compare import paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, run_cells, show
from allocgym.benchmarks.data_mixing.calibrate import SETTINGS
from allocgym.benchmarks.data_mixing.cells import run_cell
from allocgym.benchmarks.data_mixing.real import BASES, Case

RECIPES: dict[str, dict[str, float]] = {
    "plain": {},
    "steady": {"steadiness": FOR_REAL_RUNS["steadiness"]},
    "wide": {"jitter": FOR_REAL_RUNS["jitter"]},
    "wide and steady": FOR_REAL_RUNS,
}
RIVALS = ("uniform", "replay-25%", "replay-50%", "weights")
FIRST = 100
"""The first seed: the pilots' are 0 and 1."""


def _case(name: str, target_weight: float | None, steps: int) -> Case:
    setting: dict[str, Any] = {"domains": SETTINGS[name]["domains"], "steps": steps}
    if target_weight is None:
        return Case(name, "scratch", setting, None, continual=False)
    setting |= {"source": SETTINGS[name]["source"], "base_steps": 800}
    return Case(name, "continual-pretraining", setting, target_weight, first_base=10)


CASES = (
    _case("code", 0.5, 200),
    _case("sql", 0.7, 200),
    _case("dyck", 0.5, 100),
    _case("scratch", None, 200),
)


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    folder = options.cells
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    pooled: dict[str, list[float]] = {name: [] for name in RECIPES}
    for case in CASES[:1] if options.quick else CASES:
        if options.cases and case.name not in options.cases:
            continue
        agents = {}
        for name, overrides in RECIPES.items():
            path = folder / f"{case.scenario}-{name.replace(' ', '-')}.zip"
            if not path.exists():
                train("data-mixing", path, case.scenario, iterations=300, arguments=overrides)
            agents[name] = str(path)
        seeds = range(FIRST, FIRST + options.seeds)
        # From scratch there is nothing to replay: those rivals are uniform.
        rivals = {m: m for m in (RIVALS if case.continual else RIVALS[:1])}
        run_cells([case.cell(RIVALS[0], s) for s in seeds[:BASES]], run_cell, folder)
        runs = {
            name: run_cells([case.cell(method, s) for s in seeds], run_cell, folder)
            for name, method in (rivals | agents).items()
        }
        scores = {
            name: np.array([case.score(r["heldout"], r["domains"]) for r in each])
            for name, each in runs.items()
        }
        best = min(rivals, key=lambda m: scores[m].mean())
        rows = [
            [name, float(values.mean()), *_difference(values, scores[best])]
            for name, values in sorted(scores.items(), key=lambda item: item[1].mean())
        ]
        columns = ["method", "objective", f"minus {best}", "95 %", "wins/losses"]
        show(f"{case.name} ({options.seeds} paired seeds)", columns, rows)
        for name in RECIPES:
            pooled[name].extend(scores[name] - scores[best])
        results[case.name] = {
            "scores": {m: v.round(5).tolist() for m, v in scores.items()},
            "table": {"columns": columns, "rows": rows},
        }
    for name, differences in pooled.items():
        d = paired(np.array(differences), np.zeros(len(differences)))
        figures.append(
            Figure(
                f"{name}: minus each setting's best rival",
                round(d.mean, 5),
                "reported",
                None,
                "aim",
                f"{d.verdict} [{d.low:+.4f}, {d.high:+.4f}] n={d.n}",
            )
        )
    return finish("recipes", figures, results, begun, options)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> list[str]:
    d = paired(ours, theirs)
    return [f"{d.mean:+.4f}", f"[{d.low:+.4f}, {d.high:+.4f}]", f"{d.wins}/{d.losses}"]
