"""``--suite strategy``: IOPDDL B and G against the organisers' published costs."""

from __future__ import annotations

import gzip
import json
import time

from allocgym.agents.memory_mapping.strategies import descend
from allocgym.benchmarks.core.main import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.envs.memory_mapping.strategy import evaluate, from_json
from allocgym.simulators.core import public_data

PUBLISHED = {"B": (532_843.0, 990_205.0), "G": (217_039.0, 1_264_777.0)}
"""Best team and XLA (ti2-group/iopddl_experiments, iopddl_final_results.csv)."""


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seconds = 15.0 if options.quick else 40.0
    rows, figures = [], []
    for name in options.cases or PUBLISHED:
        file = public_data.path(f"memory/iopddl/asplos-2025-iopddl-{name}.json.gz")
        with gzip.open(file) as stream:
            problem = from_json(json.load(stream))
        choice, cost, moves = descend(problem, seconds)
        team, xla = PUBLISHED[name]
        feasible = choice is not None
        if choice is not None:
            checked, peak = evaluate(problem, choice)
            feasible = peak <= problem.limit and abs(checked - cost) < 1e-6 * cost
        rows.append([name, len(problem.costs), seconds, moves, cost, team, xla])
        figures += [
            Figure(f"{name}: feasible", feasible, "yes", feasible),
            Figure(f"{name}: cost over XLA's", round(cost / xla, 3), "< 1", cost < xla, "aim"),
            Figure(f"{name}: cost over the best team's", round(cost / team, 3), "<= 2",
                   cost <= 2 * team, "aim"),
        ]  # fmt: skip
    columns = ["instance", "nodes", "CPU s", "moves", "forest moves", "best team", "XLA"]
    show("strategy selection (lower is better)", columns, rows)
    return finish(
        "strategy", figures, {"table": {"columns": columns, "rows": rows}}, begun, options
    )
