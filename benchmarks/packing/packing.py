"""``--suite packing``: MiniMalloc's eleven inputs, generated ones, and a control."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.packing import solver as packers
from allocgym.agents.packing.order import offsets
from allocgym.benchmarks.core.compare import as_dict, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, run_cells, show
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.packing.buffer import Buffers, validate
from allocgym.simulators.core import public_data
from allocgym.simulators.packing.instance import INPUTS, generated, public

PUBLISHED = {
    "A": 4910,
    "B": 3661,
    "C": 637,
    "D": 2674,
    "E": 3717,
    "F": 5358,
    "G": 1181,
    "H": 1808,
    "I": 3908,
    "J": 883,
    "K": 628,
}
"""Milliseconds of MiniMalloc on its own machine (Moffitt, ASPLOS 2023, slides p. 22); it solves all."""
CLIMB, EXACT = 5.0, 30.0
"""CPU seconds of the climbs, and of CP-SAT."""
RULES = ("size", "lifetime", "area", "learned")
SEARCH = ("climb", "learned+climb", "cp-sat")
FIRST = 2**30
"""Seed of the first generated test instance; training seeds lie above 2**40."""


def instance(described: dict[str, Any]) -> Buffers:
    """The instance of a cell."""
    if described["kind"] == "public":
        return public(described["name"])
    return generated(described["kind"], described["name"])


def cell(described: dict[str, Any]) -> dict[str, Any]:
    """Pack one instance with one solver and check the packing."""
    b = instance(described)
    solver, limit = described["solver"], described["budget"]
    if solver == "oracle":
        assert b.known is not None
        order = np.argsort(b.known, kind="stable")
        got = packers.Packed(offsets(b, order), 0.0)
    else:
        got = packers.solve(solver, b, limit, described["seed"])
    if got.offsets is None:
        return {"height": None, "valid": None, "seconds": got.seconds, "status": got.status}
    try:
        height, valid = validate(b, got.offsets), True
    except AllocgymError:
        height, valid = int((got.offsets + b.size).max()), False
    return {
        "height": height / b.capacity,
        "valid": valid,
        "seconds": got.seconds,
        "status": got.status,
        "peak": b.peak / b.capacity,
    }


def plan_cells(options: Options) -> list[dict[str, Any]]:
    """Which instances are packed by whom, for how long."""
    chosen = options.agents or [*RULES, *SEARCH]
    for name in chosen:
        if name not in packers.SOLVERS:
            raise unknown("agent", name, list(packers.SOLVERS))
    limits = {"cp-sat": EXACT, "minimalloc": EXACT}
    cells = []
    inputs = [c for c in options.cases or INPUTS]
    if not public_data.available("memory/minimalloc"):
        inputs = []
    shrink = 5 if options.quick else 1
    for name in inputs:
        for solver in chosen:
            budget = 0.0 if solver in RULES else limits.get(solver, CLIMB) / shrink
            cells.append(
                {"kind": "public", "name": name, "solver": solver, "budget": budget, "seed": 0}
            )
    count = 4 if options.quick else 20
    for kind, number in (("tight", count), ("slack", count), ("stacked", 3)):
        for i in range(number):
            for solver in ["oracle", *chosen]:
                if solver in ("cp-sat", "minimalloc"):
                    continue
                budget = 0.0 if solver in (*RULES, "oracle") else 0.5
                cells.append(
                    {"kind": kind, "name": FIRST + i, "solver": solver, "budget": budget, "seed": 0}
                )
    return cells


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    cells = plan_cells(options)
    found = run_cells(cells, cell, options.cells, processes=1)
    table: dict[str, dict[str, dict[str, Any]]] = {}
    for c, r in zip(cells, found, strict=True):
        table.setdefault(c["kind"], {}).setdefault(str(c["name"]), {})[c["solver"]] = r
    packed = [r for r in found if r["height"] is not None]
    invalid = sum(not r["valid"] for r in packed)
    under = sum(r["height"] < r["peak"] - 1e-12 for r in packed)
    figures = [
        Figure(
            "packings that are not valid",
            invalid,
            "0",
            invalid == 0,
            detail=f"{len(packed)} packings",
        ),
        Figure("packings below the peak load", under, "0", under == 0),
    ]
    level = max(
        float(np.ptp([r["height"] for r in by.values()])) for by in table["stacked"].values()
    )
    figures.append(
        Figure("control: spread of heights where all is alive at once", level, "0", level == 0)
    )
    known = max(
        by["oracle"]["height"] for kind in ("tight", "slack") for by in table[kind].values()
    )
    figures.append(Figure("generated: height of the known packing", known, "<= 1", known <= 1))
    results: dict[str, Any] = {}
    if "public" in table:
        figures += _public(table["public"], results)
    figures += _generated(table, results)
    results["cells"] = {
        kind: {n: {s: r["height"] for s, r in by.items()} for n, by in some.items()}
        for kind, some in table.items()
    }
    return finish("packing", figures, results, begun, options)


def _public(table: dict[str, dict[str, dict[str, Any]]], results: dict[str, Any]) -> list[Figure]:
    solvers = list(next(iter(table.values())))
    columns = ["input", "MiniMalloc, published s", *solvers]
    rows = []
    for name, by in table.items():
        row: list[Any] = [name, f"{PUBLISHED[name] / 1000:.2f}"]
        for s in solvers:
            r = by[s]
            if r["height"] is None:
                row.append(f"none in {r['seconds']:.0f} s")
            elif r["height"] <= 1:
                row.append(f"fits, {r['seconds']:.2f} s")
            else:
                row.append(f"{r['height']:.3f}")
        rows.append(row)
    show("packing: height over capacity, or CPU time where it fits", columns, rows)
    results["MiniMalloc's inputs"] = {"table": {"columns": columns, "rows": rows}}
    fits = {
        s: sum(by[s]["height"] is not None and by[s]["height"] <= 1 for by in table.values())
        for s in solvers
    }
    total = len(table)
    figures = [
        Figure(
            f"inputs that fit by {s}",
            fits[s],
            f"{total}, as by MiniMalloc",
            fits[s] == total,
            "aim",
            f"{EXACT if s == 'cp-sat' else CLIMB:g} s of CPU" if s in SEARCH else "",
        )
        for s in solvers
        if s in (*SEARCH, "minimalloc", "learned")
    ]
    if "cp-sat" in solvers:
        quicker = sum(
            by["cp-sat"]["height"] is not None and by["cp-sat"]["seconds"] < PUBLISHED[n] / 1000
            for n, by in table.items()
        )
        figures.append(
            Figure(
                "inputs where cp-sat takes less CPU time than MiniMalloc's published",
                quicker,
                f"{total}",
                quicker == total,
                "aim",
                "another machine: no race, an order of magnitude",
            )
        )
    for a, b in (("learned", "size"), ("learned+climb", "climb")):
        if a in solvers and b in solvers:
            d = [by[a]["height"] - by[b]["height"] for by in table.values()]
            figures.append(_versus(f"public inputs: height, {a} minus {b}", np.array(d)))
    return figures


def _versus(name: str, d: np.ndarray) -> Figure:
    if len(d) < 2:
        return Figure(name, round(float(d[0]), 4), "< 0", None, "aim")
    result = as_dict(paired(d, np.zeros(len(d))))
    detail = f"{result['wins']} better, {result['losses']} worse of {len(d)}"
    return Figure(
        name, round(float(d.mean()), 4), "< 0, interval below 0", result["high"] < 0, "aim", detail
    )


def _generated(
    table: dict[str, dict[str, dict[str, dict[str, Any]]]], results: dict[str, Any]
) -> list[Figure]:
    rows = []
    figures = []
    for kind in ("tight", "slack", "stacked"):
        solvers = list(next(iter(table[kind].values())))
        for s in solvers:
            h = np.array([by[s]["height"] for by in table[kind].values()])
            rows.append([kind, s, len(h), float(h.mean()), int((h <= 1).sum())])
        if kind != "stacked":
            best = min(
                (s for s in solvers if s in ("size", "lifetime", "area")),
                key=lambda s: float(np.mean([by[s]["height"] for by in table[kind].values()])),
                default=None,
            )
            for a, b in (("learned", best), ("learned+climb", "climb")):
                if b is not None and a in solvers and b in solvers:
                    d = [by[a]["height"] - by[b]["height"] for by in table[kind].values()]
                    figures.append(_versus(f"{kind}: height, {a} minus {b}", np.array(d)))
    columns = ["generated", "solver", "instances", "height over capacity", "fit"]
    show("packing, generated instances", columns, rows)
    results["generated"] = {"table": {"columns": columns, "rows": rows}}
    return figures
