"""``--suite tasks``: which tasks to train on, and what a larger model will score."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pandas as pd

from allocgym.agents.population import difficulty, tasks
from allocgym.benchmarks.core.compare import as_dict, holm, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.core import public_data
from allocgym.simulators.population.transfer import SCENARIOS, Row

RULES = ("mbtl", "equidistant", "bisection", "random", "oracle")
DATA = "population/pythia"
GUESS = {
    "lambada_openai_acc": 0.0,
    "piqa_acc": 0.5,
    "winogrande_acc": 0.5,
    "wsc_acc": 0.5,
    "arc_easy_acc": 0.25,
    "arc_challenge_acc": 0.25,
    "sciq_acc": 0.25,
    "logiqa_acc": 0.25,
    "mmlu_mean_acc": 0.25,
}
"""Score of guessing, by column of the Pythia evaluations."""
BANDWIDTH = 0.3
"""Of the groups; four of .1 to .5 were looked at on these data before one was kept."""
LAST_STEP = 143_000


def choosing(row: Row, seeds: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Mean value of all tasks at the end of the budget, and averaged over it, ``(seeds,)`` by rule."""
    ends: dict[str, list[float]] = {k: [] for k in RULES}
    means: dict[str, list[float]] = {k: [] for k in RULES}
    for seed in range(seeds):
        matrix = row.sample(seed)
        for rule in RULES:
            _, values = tasks.play(rule, matrix, row.slope, row.budget, seed)
            ends[rule].append(float(values[-1]))
            means[rule].append(float(values.mean()))
    return ({k: np.array(v) for k, v in ends.items()}, {k: np.array(v) for k, v in means.items()})


def predicting() -> list[list[Any]]:
    """Score of the largest Pythia model from the smaller ones: rows of (shots, truth, forecasts)."""
    table = pd.read_csv(public_data.path(DATA) / "pythia_v1_eval_curves.csv")
    plain = table["model"].str.fullmatch(r"pythia-[\d.]+[mb](-bf16)?")
    table = table[(table["step"] == LAST_STEP) & plain]
    parts = table["model"].str.extract(r"([\d.]+)([mb])")
    table = table.assign(size=parts[0].astype(float) * parts[1].map({"m": 1e6, "b": 1e9}))
    guess = np.array(list(GUESS.values()))
    rows: list[list[Any]] = []
    for shots, runs in table.sort_values("size").groupby("shot"):
        scores, size = runs[list(GUESS)].to_numpy().T, runs["size"].to_numpy()
        known, truth = scores[:, :-1], float(scores[:, -1].mean())
        try:
            grouped: float | str = difficulty.predict(
                known, size[:-1], float(size[-1]), guess, BANDWIDTH
            )
        except AllocgymError as error:
            grouped = str(error)
        whole = difficulty.fit_growth(size[:-1] / size[0], known.mean(0), float(guess.mean()))
        rows.append(
            [
                shots,
                truth,
                grouped,
                float(whole(size[-1:] / size[0])[0]),
                float(known[:, -1].mean()),
            ]
        )
    return rows


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    for name, row in SCENARIOS.items():
        ends, means = choosing(row, options.seeds)
        against = {k: paired(-ends["mbtl"], -v) for k, v in ends.items() if k != "mbtl"}
        corrected = dict(zip(against, holm([d.p for d in against.values()]), strict=True))
        table: list[list[Any]] = []
        for rule in sorted(RULES, key=lambda k: -ends[k].mean()):
            d = against.get(rule)
            table.append(
                [
                    rule,
                    float(ends[rule].mean()),
                    float(means[rule].mean()),
                    "" if d is None else f"{-d.mean:+.4f} [{-d.high:+.4f}, {-d.low:+.4f}]",
                    "" if d is None else f"{corrected[rule]:.3f}",
                ]
            )
        columns = [
            "rule",
            "mean value at the end",
            "averaged over the budget",
            "mbtl more than it at the end, 95 %",
            "p (Holm)",
        ]
        show(f"{name} ({options.seeds} paired seeds)", columns, table)
        results[name] = {
            "table": {"columns": columns, "rows": table},
            "minus mbtl": {k: as_dict(d) for k, d in against.items()},
        }
        if name == "control":
            best = max(float(ends[k].max()) for k in ("mbtl", "bisection", "random"))
            even = float(ends["equidistant"].min())
            figures.append(
                Figure(
                    "control: nobody beats even spacing",
                    round(best, 5),
                    f"<= {even:.5f}",
                    best <= even + 1e-9,
                )
            )
            continue
        for rule in ("equidistant", "bisection", "random"):
            over = paired(-means["mbtl"], -means[rule])
            for d, when in ((against[rule], "at the end"), (over, "averaged over the budget")):
                figures.append(
                    Figure(
                        f"mbtl more than {rule} {when}",
                        round(-d.mean, 5),
                        "ahead",
                        None if options.underpowered else d.verdict == "won",
                        "aim",
                        f"{d.verdict} [{-d.high:+.4f}, {-d.low:+.4f}]",
                    )
                )
    if public_data.available(DATA):
        rows = predicting()
        columns = [
            "shots",
            "measured",
            "by groups of difficulty",
            "one curve for all",
            "as the next smaller one",
        ]
        show("mean of 9 tasks, Pythia 12B from 70M to 6.9B", columns, rows)
        results["pythia"] = {"table": {"columns": columns, "rows": rows}}
        for row_ in rows:
            if isinstance(row_[2], float):
                errors = [abs(float(x) - row_[1]) for x in row_[2:4]]
                figures.append(
                    Figure(
                        f"Pythia 12B, {row_[0]}: error by groups",
                        round(errors[0], 4),
                        "reported",
                        None,
                        "aim",
                        f"one curve for all: {errors[1]:.4f}",
                    )
                )
    return finish("tasks", figures, results, begun, options)
