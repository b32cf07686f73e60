"""The demo: train in the simulator, deploy on real training runs, compare, report."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue, report
from allocgym.agents.core.deployment import Deployment, describe_run
from allocgym.agents.core.training import train
from allocgym.agents.data_mixing.training import FOR_REAL_RUNS
from allocgym.benchmarks.core.compare import paired
from allocgym.benchmarks.core.suite import console, run_cells, show
from allocgym.benchmarks.data_mixing.cells import describe, run_cell
from allocgym.envs.core import figures
from allocgym.envs.core.builder import build

SCENARIO = "continual-pretraining"
RIVALS = ("uniform", "weights", "replay-10%", "replay-25%", "replay-50%")
NOTE = "n = {n}: a demonstration, not evidence."


def demo(out: Path, seeds: int = 3, iterations: int = 200) -> Path:
    """Run the demo.

    Args:
        out: folder for the agent file, the deployment, the cells and ``report.html``.
        seeds: paired seeds of the comparison.
        iterations: of training in the simulator.

    Returns:
        The report.
    """
    begun = time.time()
    out.mkdir(parents=True, exist_ok=True)
    console.print("1/4 training an agent in the simulator")
    agent_path = out / "agent.zip"
    information = train(
        "data-mixing",
        agent_path,
        SCENARIO,
        "gradient",
        iterations,
        arguments={"batch": 128, **FOR_REAL_RUNS},
    )
    console.print(f"    {information['episodes']} episodes in {information['seconds']} s")

    console.print("2/4 deploying it on a real training run (pre-trains the base model first)")
    folder = out / "deployment"
    backend = build("data-mixing", "real", SCENARIO)
    if not (folder / "run.json").exists():  # else the demo is taken up again
        describe_run(
            folder,
            {
                "problem": "data-mixing",
                "agent": str(agent_path),
                "backend": "real",
                "scenario": SCENARIO,
                "seed": 0,
                "fallback": "uniform",
                "max_change": None,
                "max_seconds": None,
                "max_cost": None,
                "shadow": None,
                "overrides": {},
            },
        )
    domains = backend.spec.claimants

    def progress(period: int, horizon: int, keyed: Any, outcome: Any) -> None:
        mixture = zip(domains, keyed.decision.fractions[0], strict=False)
        text = "  ".join(f"{name} {100 * s:.0f}%" for name, s in mixture)
        console.print(f"    period {period}/{horizon}: {text}", highlight=False)

    live = Deployment(
        backend, catalogue.make(agent_path, backend.problem), folder, progress=progress
    )
    controller = live.run()
    report.deployment_report(controller, folder, domains, backend.ledger.to_json())
    backend.close()

    console.print(
        f"3/4 comparing with heuristics: {len(RIVALS) + 1} methods x {seeds} paired seeds"
    )
    methods = [*RIVALS, str(agent_path)]
    cells = [describe(SCENARIO, {}, m, s) for s in range(seeds) for m in methods]
    runs = run_cells(cells, run_cell, out / "cells")
    inst = controller.outcomes[0].instance  # type: ignore[attr-defined]
    weight = inst.weight[0, inst.present[0]]
    results = {
        ("learned" if m == str(agent_path) else m): [
            runs[s * len(methods) + k] for s in range(seeds)
        ]
        for k, m in enumerate(methods)
    }
    scores = {m: np.array([weight @ r["heldout"] for r in rs]) for m, rs in results.items()}
    rows = comparison(scores)
    columns = ["method", "objective (bits/byte)", "learned minus it", "95 %", "wins/losses"]
    show(f"real runs, {SCENARIO}", columns, rows)
    console.print(NOTE.format(n=seeds) if seeds < 10 else f"n = {seeds} paired seeds")

    console.print("4/4 writing the report")
    page = write_report(out, seeds, information, rows, columns, results, scores, list(domains))
    console.print(f"report: {page} ({time.time() - begun:.0f} s in all)")
    return page


def comparison(scores: dict[str, np.ndarray]) -> list[list[Any]]:
    """One row a method: its mean, and the learned agent's paired difference from it."""
    rows: list[list[Any]] = []
    for method, values in sorted(scores.items(), key=lambda item: item[1].mean()):
        if method == "learned":
            rows.append([method, float(values.mean()), "", "", ""])
            continue
        d = paired(scores["learned"], values)
        rows.append(
            [
                method,
                float(values.mean()),
                f"{d.mean:+.4f}",
                f"[{d.low:+.4f}, {d.high:+.4f}]",
                f"{d.wins}/{d.losses}",
            ]
        )
    return rows


def write_report(
    out: Path,
    seeds: int,
    information: dict[str, Any],
    rows: list[list[Any]],
    columns: list[str],
    results: dict[str, list[dict[str, Any]]],
    scores: dict[str, np.ndarray],
    domains: list[str],
) -> Path:
    """Write ``report.html`` and ``report.png``."""
    picture, (left, middle, right) = figures.figure(13.0, 3.8, 3)
    learned = results["learned"][0]
    figures.stack(left, np.array(learned["shares"]), domains)
    left.legend(fontsize=8, loc="lower right")
    left.set_title("what the agent decided (seed 0)")
    losses = np.array(learned["losses"])
    baseline = np.array(results["uniform"][0]["losses"])
    for j, name in enumerate(domains):
        (line,) = middle.plot(losses[:, j], marker=".", label=name)
        middle.plot(baseline[:, j], ls=":", color=line.get_color())
    middle.set(xlabel="period", ylabel="validation loss (bits per byte)")
    middle.set_title("losses: agent (solid), uniform (dotted)")
    middle.legend(fontsize=8)
    order = sorted(scores, key=lambda m: scores[m].mean(), reverse=True)
    for y, method in enumerate(order):
        difference = 1000 * (scores[method] - scores["uniform"])
        right.plot(difference, np.full(len(difference), y), "o", ms=4, alpha=0.5, color="C0")
        right.plot(difference.mean(), y, "D", ms=7, color="C1" if method == "learned" else "C0")
    right.axvline(0, color="0.7", lw=1)
    right.set_yticks(range(len(order)), order)
    right.set(xlabel="objective minus uniform (0.001 bits per byte)")
    right.set_title(f"held-out objective, {seeds} seeds (left is better)")
    (out / "report.png").write_bytes(figures.png(picture))
    note = NOTE.format(n=seeds) if seeds < 10 else f"n = {seeds} paired seeds."
    parts = [
        f"<p class=note>{note}</p>",
        "<p>A mixture controller was trained in the simulator "
        f"({information['episodes']} episodes, {information['seconds']} s) and deployed, unchanged, "
        "on real training runs of a small byte-level language model on this machine. Every method "
        "had the same tokens, the same data order and the same base model.</p>",
        report.image(picture),
        "<h2>Paired comparison</h2>",
        report.table(columns, rows),
        "<p>One of the deployments, with its journal and ledger: "
        "<a href='deployment/report.html'>deployment/report.html</a></p>",
    ]
    return report.write(out / "report.html", "Data mixing: from the simulator to real runs", parts)
