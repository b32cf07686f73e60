"""``--suite mapping``: unseen programs in the contention band, controls outside it, equal CPU budgets."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.memory_mapping import exact
from allocgym.agents.memory_mapping import order as orders
from allocgym.agents.memory_mapping.solver import SOLVERS, solve
from allocgym.benchmarks.core.compare import as_dict, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, run_cells, show
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.memory_mapping.plan import saved, validate
from allocgym.envs.memory_mapping.program import Device, Program
from allocgym.simulators.memory_mapping.backend import MappingSimulator
from allocgym.simulators.memory_mapping.program import instances

SINGLE = ("drop-all", *orders.GREEDY, "learned", "ppo", "best-of")
SEARCH = ("order-climb", "learned+climb", "tree", "cp-sat")
FREE = ("drop-all", "ppo")
"""Policies that may leave fast memory empty where all would fit: they are not held level in a control."""
BUDGETS = (0.1, 1.0, 10.0, 60.0)
SLACK = 1e-6
"""Rounding allowed when a plan is held against a bound."""


def pairs_of(scenario: str) -> tuple[tuple[Program, Device], ...]:
    """Programs and machines of a scenario, or of a recorded file."""
    return instances(MappingSimulator.choose(scenario, {}))


def cell(described: dict[str, Any]) -> dict[str, Any]:
    """Solve one instance with one solver and check the plan."""
    program, device = pairs_of(described["scenario"])[described["instance"]]
    if described["solver"] == "bound":
        begun = time.process_time()
        return {"bound": exact.relaxation(program, device), "seconds": time.process_time() - begun}
    got = solve(described["solver"], program, device, described["budget"], described["seed"])
    try:
        validate(program, device, got.plan)
        valid = True
    except AllocgymError:
        valid = False
    return {
        "saved": saved(program, device, got.plan),
        "seconds": got.seconds,
        "bound": got.bound,
        "valid": valid,
    }


def subject(options: Options) -> tuple[str, dict[str, str]]:
    """The scenario whose instances are solved, and what tells a recorded file from an older one."""
    traces = [c for c in options.cases or () if c.endswith(".json")]
    if len(traces) > 1:
        raise AllocgymError(f"cases: one recorded program expected, given {', '.join(traces)}")
    if not traces:
        return "test", {}
    try:
        digest = hashlib.sha256(Path(traces[0]).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise AllocgymError(f"trace: {traces[0]} cannot be read ({error})") from error
    return traces[0], {"sha256": digest}


def plan_cells(options: Options) -> list[dict[str, Any]]:
    """Which instances are solved by whom, for how long.

    ``--cases "0.1;1"`` names budgets; a case that ends in ``.json`` is a recorded program that takes the
    place of the bundled ones.
    """
    main, extra = subject(options)
    count = len(pairs_of(main))
    every = list(range(count)) if not options.quick else list(range(0, count, 3))
    subsets = {0.1: every, 1.0: every, 10.0: every[1::5], 60.0: every[1::12]}
    budgets: tuple[float, ...] = BUDGETS[:2] if options.quick else BUDGETS
    named = [c for c in options.cases or () if not c.endswith(".json")]
    if named:
        budgets = tuple(b for b in BUDGETS if f"{b:g}" in named)
    chosen = options.agents or [*SINGLE, *SEARCH]
    for name in chosen:
        if name not in SOLVERS:
            raise unknown("agent", name, SOLVERS)
    cells = []
    for scenario, which in (
        (main, every),
        ("compute-bound", range(0, len(pairs_of("compute-bound")), 3)),
        ("ample", range(8)),
    ):
        for i in which:
            base = {"scenario": scenario, "instance": i, "seed": 0}
            base |= extra if scenario == main else {}
            cells.append({**base, "solver": "bound", "budget": 0.0})
            cells += [{**base, "solver": s, "budget": 0.0} for s in chosen if s in SINGLE]
            if scenario != main:
                cells += [{**base, "solver": s, "budget": 0.1} for s in chosen if s in SEARCH]
    for seed in range(options.seeds):
        for budget in budgets:
            for i in subsets[budget]:
                base = {"scenario": main, "instance": i, "seed": seed, "budget": budget, **extra}
                cells += [{**base, "solver": s} for s in chosen if s in SEARCH]
    # The solver's budget is CPU time since the cells were first made.
    return [{**c, "clock": "cpu"} if c["solver"] == "cp-sat" else c for c in cells]


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    cells = plan_cells(options)
    found = run_cells(cells, cell, options.cells, processes=1)
    main, _ = subject(options)
    pairs = pairs_of(main)
    table: dict[tuple[str, float], dict[int, list[float]]] = {}
    bounds: dict[int, float] = {}
    invalid = above = 0
    control: dict[tuple[str, int], dict[str, float]] = {}
    limit: dict[tuple[str, int], float] = {}
    for c, r in zip(cells, found, strict=True):
        key = (c["scenario"], c["instance"])
        if r.get("bound") is not None:
            limit[key] = min(limit.get(key, 1.0), r["bound"])
    for c, r in zip(cells, found, strict=True):
        if c["solver"] == "bound":
            continue
        key = (c["scenario"], c["instance"])
        invalid += not r["valid"]
        above += r["saved"] > limit[key] + SLACK
        if c["scenario"] == main:
            table.setdefault((c["solver"], c["budget"]), {}).setdefault(c["instance"], []).append(
                r["saved"]
            )
            bounds[c["instance"]] = limit[key]
        else:
            control.setdefault(key, {})[c["solver"]] = r["saved"]
    level = max(
        (float(np.ptp([v for s, v in by.items() if s not in FREE])) for by in control.values()),
        default=0.0,
    )
    lead = max(
        (max(by.values()) - by["xla"] for by in control.values() if "xla" in by), default=0.0
    )
    lost = max(
        (by["xla"] - by.get("ppo", by["xla"]) for by in control.values() if "xla" in by),
        default=0.0,
    )
    best = {i: max(max(v[i]) for v in table.values() if i in v) for i in bounds}
    mean = {k: {i: float(np.mean(x)) for i, x in v.items()} for k, v in table.items()}

    def versus(a: tuple[str, float], b: tuple[str, float]) -> dict[str, Any] | None:
        if a not in mean or b not in mean:
            return None
        both = sorted(set(mean[a]) & set(mean[b]))
        d = np.array([mean[a][i] - mean[b][i] for i in both])
        result = as_dict(paired(-d, np.zeros(len(d)))) if len(d) > 1 else {"mean": -float(d[0])}
        return {
            "wins": int((d > 1e-4).sum()),
            "ties": int((np.abs(d) <= 1e-4).sum()),
            "losses": int((d < -1e-4).sum()),
            "points": 100 * float(d.mean()),
            "worst": 100 * float(d.min()),
            "paired": result,
        }

    rows = []
    for (name, budget), values in mean.items():
        on = sorted(values)
        v = np.array([values[i] for i in on])
        gap = np.array([best[i] for i in on]) - v
        top = np.array([bounds[i] for i in on]) - v
        d = versus((name, budget), ("xla", 0.0))
        rows.append(
            [
                name,
                budget or "-",
                len(on),
                100 * float(v.mean()),
                100 * float(gap.mean()),
                100 * float(top.mean()),
                f"{d['wins']}/{d['ties']}/{d['losses']}" if d else "",
            ]
        )
    columns = [
        "solver",
        "CPU s",
        "instances",
        "saved %",
        "gap to best known",
        "gap to bound",
        "win/tie/loss against xla",
    ]
    show(
        "mapping: unseen programs in the contention band (points of the all-slow time)",
        columns,
        rows,
    )
    worked = f"{len(cells)} cells, {sum(r['seconds'] for r in found):.0f} s of CPU"
    figures = [
        Figure("plans that are not valid", invalid, "0", invalid == 0, detail=worked),
        Figure("plans above the bound", above, "0", above == 0),
        Figure(
            "spread in the controls",
            level,
            "<= 1e-6",
            level <= 1e-6,
            detail="every rule and search that keeps what it can, compute-bound and ample",
        ),
        Figure("lead over xla in the controls", lead, "<= 1e-6", lead <= 1e-6, detail="anybody's"),
        Figure(
            "ppo behind xla in the controls, points",
            round(100 * lost, 2),
            "0",
            lost <= 1e-6,
            "aim",
            "it was trained in the contention band only, and drops",
        ),
    ]
    alone = versus(("learned", 0.0), ("xla", 0.0))
    if alone:
        share = alone["wins"] / max(sum(alone[k] for k in ("wins", "ties", "losses")), 1)
        figures.append(
            Figure(
                "learned alone ahead of xla, share of instances",
                round(share, 3),
                "> 0.5",
                share > 0.5,
                "aim",
                f"{alone['wins']}/{alone['ties']}/{alone['losses']}, {alone['points']:+.2f} points",
            )
        )
    for budget in BUDGETS:
        d = versus(("learned+climb", budget), ("order-climb", budget))
        if d is None:
            continue
        if budget <= 1:
            asked, met = "> 0 points, interval above 0", d["paired"].get("high", d["points"]) < 0
        else:
            asked, met = "no worse than 0.2 points", d["worst"] >= -0.2
        figures.append(
            Figure(
                f"learned+climb minus order-climb at {budget:g} s, points",
                round(d["points"], 3),
                asked,
                bool(met),
                "aim",
                f"{d['wins']}/{d['ties']}/{d['losses']}, worst {d['worst']:+.2f}",
            )
        )
    open_ones = [i for i in bounds if bounds[i] - best[i] > 0.01]
    for budget in BUDGETS[:2]:
        ours, theirs = mean.get(("learned+climb", budget)), mean.get(("order-climb", budget))
        if ours and theirs and open_ones:
            gain = np.array([ours[i] - theirs[i] for i in open_ones])
            ahead, behind = int((gain > 1e-4).sum()), int((gain < -1e-4).sum())
            figures.append(
                Figure(
                    f"where the bound leaves more than a point, ahead at {budget:g} s",
                    ahead,
                    f"all {len(gain)}",
                    ahead == len(gain),
                    "aim",
                    f"{ahead}/{len(gain) - ahead - behind}/{behind}",
                )
            )
    results = {
        "table": {"columns": columns, "rows": rows},
        "against": {
            f"{a[0]} {a[1]:g} minus {b[0]} {b[1]:g}": versus(a, b)
            for a, b in [
                (("learned", 0.0), ("xla", 0.0)),
                (("best-of", 0.0), ("xla", 0.0)),
                *[
                    (("learned+climb", t), (o, t))
                    for t in BUDGETS
                    for o in ("order-climb", "cp-sat")
                ],
            ]
        },
        "instances": {
            f"{i}: {pairs[i][0].name}, {pairs[i][1].capacity} B": {
                "bound": bounds[i],
                "best": best[i],
                **{f"{n} {t:g}": v[i] for (n, t), v in mean.items() if i in v},
            }
            for i in bounds
        },
        "bound leaves more than a point": len(open_ones),
    }
    return finish("mapping", figures, results, begun, options)
