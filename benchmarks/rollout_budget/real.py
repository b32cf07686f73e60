"""``--suite real``: paired GRPO runs of a character transformer on this machine."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget.agent import make_rule
from allocgym.benchmarks.core.compare import Paired, as_dict, holm, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, run_cells, show
from allocgym.benchmarks.rollout_budget import cells
from allocgym.envs.core.errors import unknown
from allocgym.envs.rollout_budget import curves

REGIMES = ("hard-tail", "mixed-cost", "easy")
PLAIN = ("uniform", "anti", "posterior-greedy", "knapsack-published", "sequential", "uniform-16")
LEARNED = "learned"
AGENTS = {
    "hard-tail": "hard-tail-rollouts",
    "mixed-cost": "hetero-cost-tokens",
    "easy": "hard-tail-rollouts",
}
"""Shipped agents, trained on the simulator's scenario nearest to a regime."""
AXES = ("rollouts", "tokens")


Runs = dict[str, dict[int, dict[str, Any]]]


def scores_of(runs: Runs, axis: str) -> dict[str, dict[int, tuple[float, float]]]:
    """Area and final accuracy by policy and seed, up to the least total any run of a seed reached."""
    seeds = {s for several in runs.values() for s in several}
    limit = {s: min(v[s][axis][-1] for v in runs.values() if s in v) for s in seeds}
    out: dict[str, dict[int, tuple[float, float]]] = {}
    for name, several in runs.items():
        out[name] = {}
        for seed, r in sorted(several.items()):
            x, y = np.array(r[axis])[None], np.array(r["accuracy"])[None]
            end = np.array([limit[seed]])
            out[name][seed] = (float(curves.area(x, y, end)[0]), float(curves.at(x, y, end)[0]))
    return out


def versus_uniform(scores: dict[str, dict[int, tuple[float, float]]], name: str) -> Paired:
    """Paired difference of areas on the seeds both have (negative: ahead of uniform)."""
    both = sorted(set(scores[name]) & set(scores["uniform"]))
    return paired(
        np.array([-scores[name][s][0] for s in both]),
        np.array([-scores["uniform"][s][0] for s in both]),
    )


def report(regime: str, runs: Runs, axis: str, stated: int) -> tuple[dict[str, Any], list[Figure]]:
    """Print one regime on one axis; return its JSON and figures."""
    scores = scores_of(runs, axis)
    versus = {n: versus_uniform(scores, n) for n in scores if n != "uniform"}
    corrected = dict(zip(versus, holm([d.p for d in versus.values()]), strict=True))
    rows: list[list[Any]] = []
    for name, several in scores.items():
        d = versus.get(name)
        area, final = (float(np.mean([v[i] for v in several.values()])) for i in (0, 1))
        rows.append(
            [
                name,
                len(several),
                area,
                final,
                "" if d is None else f"{-d.mean:+.4f}",
                "" if d is None else f"[{-d.high:+.4f}, {-d.low:+.4f}]",
                float(np.mean([r["prompt_ratio"] for r in runs[name].values()])),
                float(np.mean([r["rollout_ratio"] for r in runs[name].values()])),
            ]
        )
    columns = [
        "allocator",
        "seeds",
        "area",
        "final",
        "area minus uniform (paired)",
        "95 %",
        "prompt ratio",
        "rollout ratio",
    ]
    rows.sort(key=lambda r: -r[2])
    show(f"{regime}, equal {axis}", columns, rows)
    figures = []
    for name, d in versus.items():
        word = d.verdict if d.n > 1 else "one pair: no verdict"
        text = f"{word} [{-d.high:+.4f}, {-d.low:+.4f}] n={d.n}"
        if name == "anti":
            met: bool | None = d.verdict == "lost" if d.n > 1 else None
            kind = "must" if axis == "rollouts" else "aim"
            target = "significantly behind"
        else:
            met = (d.verdict == "won") if name == LEARNED and d.n >= stated else None
            kind, target = "aim", "ahead" if name == LEARNED else "reported"
        figures.append(
            Figure(
                f"{regime}, equal {axis}: {name} minus uniform (area)",
                round(-d.mean, 5),
                target,
                met,
                kind,
                text,
            )
        )
    data: dict[str, Any] = {
        "area": {n: {str(k): round(v[0], 5) for k, v in s.items()} for n, s in scores.items()},
        "final": {n: {str(k): round(v[1], 5) for k, v in s.items()} for n, s in scores.items()},
        "minus uniform (errors)": {
            n: {**as_dict(d), "p_holm": round(corrected[n], 5)} for n, d in versus.items()
        },
        "table": {"columns": columns, "rows": rows},
    }
    return data, figures


def finished(folder: Path, regime: str, names: list[str], seeds: int) -> Runs:
    """Runs of a regime that are on disk already."""
    runs: Runs = {}
    for file in sorted(folder.glob("*.json")):
        data = json.loads(file.read_text())
        cell = data["cell"]
        if (
            cell.get("regime") != regime
            or cell["seed"] >= seeds
            or "trajectory" not in data["result"]
        ):
            continue
        name = LEARNED if str(cell["agent"]).startswith("learned:") else cell["agent"]
        if name in names:
            runs.setdefault(name, {})[cell["seed"]] = data["result"]
    return runs


def suite(options: Options) -> int:
    """Run every cell that is not cached, then compare.

    With ``--quick``, runs that are on disk are compared and none is started, unless there are none:
    then two seeds of uniform and anti in one regime are run.
    """
    begun = time.time()
    folder = options.cells
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    cpu = 0.0
    for regime in options.cases or REGIMES:
        if regime not in REGIMES:
            raise unknown("cases", regime, REGIMES)
        names = list(options.agents or [*PLAIN, LEARNED])
        if "uniform" not in names:
            names.insert(0, "uniform")
        limit = max(options.seeds, options.stated) if options.quick else options.seeds
        runs = finished(folder, regime, names, limit)
        if not options.quick or (not runs and regime == REGIMES[0]):
            chosen = ["uniform", "anti"] if options.quick else names
            runs = start(folder, regime, chosen, options.seeds)
        if len(runs.get("uniform", {})) == 0:
            console.print(f"{regime}: no finished run of uniform; skipped")
            continue
        cpu += sum(r["cpu_seconds"] for v in runs.values() for r in v.values())
        for axis in AXES:
            data, judged = report(regime, runs, axis, options.stated)
            results[f"{regime}, equal {axis}"] = data
            figures += judged
    console.print(f"{cpu:.0f} CPU-seconds of training in these runs")
    results["CPU seconds"] = round(cpu, 1)
    return finish("real", figures, results, begun, options)


def start(folder: Path, regime: str, names: list[str], seeds: int) -> Runs:
    """Run a regime's cells, one at a time; finished ones are read back."""
    plan = []
    shipped = f"learned:{AGENTS[regime]}"
    for seed in range(seeds):
        for name in names:
            agent = shipped if name == LEARNED else name
            cell = cells.describe(regime, agent, seed, make_rule(agent).rounds)
            plan.append((name, seed, cell))
    done = run_cells([cell for _, _, cell in plan], cells.run, folder, 1)
    runs: Runs = {}
    for (name, seed, _), result in zip(plan, done, strict=True):
        runs.setdefault(name, {})[seed] = result
    return runs
