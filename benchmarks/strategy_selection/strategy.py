"""``--suite strategy``: IOPDDL B, G and V against published costs, and generated instances."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.strategy_selection.forest import descend
from allocgym.agents.strategy_selection.heuristics import Search
from allocgym.agents.strategy_selection.search import search
from allocgym.benchmarks.core.compare import as_dict, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, run_cells, show
from allocgym.envs.core.builder import build
from allocgym.envs.strategy_selection.instance import FORBIDDEN, evaluate
from allocgym.simulators.core import public_data
from allocgym.simulators.strategy_selection.network import public

PUBLISHED: dict[str, tuple[float, float | None]] = {
    "B": (532_843.0, 990_205.0),
    "G": (217_039.0, 1_264_777.0),
    "V": (1_632_051.0, None),
}
"""Best team and XLA (ti2-group/iopddl_experiments, iopddl_final_results.csv)."""
SECONDS = {"search": 40.0, "forests": 40.0}
RULES = ("random", "least-memory", "myopic", "look-ahead", "scored", "search")
FIRST = 2**30
"""Seed of the first generated test instance; training seeds lie above 2**40."""


def cell(described: dict[str, Any]) -> dict[str, Any]:
    """Solve a public instance, or play generated ones with one agent."""
    if described["kind"] == "generated":
        back = build("strategy-selection", "twin", described["scenario"], described["count"])
        begun = time.process_time()
        agent = catalogue.make(described["agent"], back.problem)
        if isinstance(agent, Search):
            agent.seconds = described["seconds"]
        last: Any = rollout(agent, back, FIRST + np.arange(described["count"]))[-1]
        return {
            "log10": agent.memory.objective.tolist(),
            "broken": last.broken.tolist(),
            "seconds": time.process_time() - begun,
        }
    instance = public(described["instance"])
    begun = time.process_time()
    if described["solver"] == "search":
        got = search(instance, described["seconds"], described["seed"])
        choice, cost = got.choice, got.cost
        more: dict[str, Any] = {"bound": got.bound, "best": got.best, "rounds": got.rounds}
    else:
        choice, cost, moves = descend(instance, described["seconds"], described["seed"])
        more = {"rounds": moves}
    feasible = False
    if choice is not None:
        checked, peak = evaluate(instance, choice)
        feasible = (
            peak <= instance.limit and checked < FORBIDDEN and abs(checked - cost) < 1e-6 * cost
        )
    seconds = time.process_time() - begun
    return {"cost": cost if feasible else None, "feasible": feasible, "seconds": seconds, **more}


def plan_cells(options: Options) -> list[dict[str, Any]]:
    """Which instances are solved by whom, for how long."""
    shrink = 0.4 if options.quick else 1.0
    names = [n for n in options.cases or PUBLISHED if n in PUBLISHED]
    if not public_data.available("memory/iopddl"):
        names = []
    cells: list[dict[str, Any]] = [
        {
            "kind": "public",
            "instance": name,
            "solver": solver,
            "seconds": shrink * SECONDS[solver],
            "seed": 0,
        }
        for name in names
        for solver in SECONDS
    ]
    for scenario, count in (("test", 4 if options.quick else 20), ("level", 3)):
        cells += [
            {
                "kind": "generated",
                "scenario": scenario,
                "agent": agent,
                "count": count,
                "seconds": 1.0 if options.quick else 3.0,
            }
            for agent in RULES
        ]
    return cells


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    cells = plan_cells(options)
    found = run_cells(cells, cell, options.cells, processes=1)
    public_rows, figures = [], []
    results: dict[str, Any] = {"cells": []}
    generated: dict[str, dict[str, dict[str, Any]]] = {}
    for c, r in zip(cells, found, strict=True):
        results["cells"].append({**c, **r})
        if c["kind"] == "generated":
            generated.setdefault(c["scenario"], {})[c["agent"]] = r
            continue
        team, xla = PUBLISHED[c["instance"]]
        public_rows.append(
            [
                c["instance"],
                c["solver"],
                f"{c['seconds']:g}",
                r["cost"] or "none within the limit",
                round(r["bound"]) if "bound" in r else "-",
                round(r["best"], 1) if r.get("best") else "-",
                round(team),
                round(xla) if xla else "-",
            ]
        )
        if c["solver"] == "search":
            figures += _public(c["instance"], r, team, xla)
    columns = [
        "instance",
        "solver",
        "CPU s",
        "cost",
        "bound",
        "best found after s",
        "best team",
        "XLA",
    ]
    show("strategy selection (lower is better)", columns, public_rows)
    results["table"] = {"columns": columns, "rows": public_rows}
    figures += _generated(generated, results)
    return finish("strategy", figures, results, begun, options)


def _public(name: str, r: dict[str, Any], team: float, xla: float | None) -> list[Figure]:
    cost = r["cost"]
    must = "must" if name != "V" else "aim"
    figures = [Figure(f"{name}: feasible", r["feasible"], "yes", r["feasible"], must)]
    if xla is not None:
        value = round(cost / xla, 3) if cost else None
        figures.append(
            Figure(f"{name}: cost over XLA's", value, "< 1", bool(cost and cost < xla), "aim")
        )
    value = round(cost / team, 4) if cost else None
    figures.append(
        Figure(
            f"{name}: cost over the best team's",
            value,
            "<= 2",
            bool(cost and cost <= 2 * team),
            "aim",
        )
    )
    if cost:
        above = r["bound"] <= cost * (1 + 1e-9)
        figures.append(
            Figure(f"{name}: our bound over our cost", round(r["bound"] / cost, 3), "<= 1", above)
        )
    return figures


def _generated(
    generated: dict[str, dict[str, dict[str, Any]]], results: dict[str, Any]
) -> list[Figure]:
    rows, figures = [], []
    for scenario, by in generated.items():
        for agent, r in by.items():
            value = np.array(r["log10"])
            rows.append(
                [scenario, agent, len(value), float(value.mean()), int(np.sum(r["broken"]))]
            )
    columns = ["generated", "agent", "instances", "minus log10 of cost", "not allowed"]
    show("strategy selection, generated networks", columns, rows)
    results["generated"] = {"table": {"columns": columns, "rows": rows}}
    level = float(np.ptp([v for r in generated["level"].values() for v in r["log10"]]))
    figures.append(
        Figure(
            "control: spread where every strategy costs the same", level, "<= 1e-9", level <= 1e-9
        )
    )
    by = generated["test"]
    best = max(
        ("least-memory", "myopic", "look-ahead"), key=lambda a: float(np.mean(by[a]["log10"]))
    )
    for a, b in (("scored", best), ("search", "scored")):
        d = as_dict(paired(-np.array(by[a]["log10"]), -np.array(by[b]["log10"])))
        figures.append(
            Figure(
                f"generated: log10 of cost, {a} minus {b}",
                round(d["mean"], 4),
                "< 0, interval below 0",
                d["high"] < 0,
                "aim",
                f"{d['wins']} better, {d['losses']} worse of {d['n']}",
            )
        )
    broken = sum(by["search"]["broken"])
    figures.append(
        Figure("generated: choices of the search that are not allowed", broken, "0", broken == 0)
    )
    return figures
