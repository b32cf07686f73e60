"""``--suite curves``: early stopping trained on TaskSet, tested on AlgoPerf's logs; time to target."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.training import train
from allocgym.benchmarks.core.compare import as_dict, holm, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.envs.core.builder import build
from allocgym.simulators.core import public_data

LEARNED = "learned (cma)"
DATA = {"taskset": "population/taskset_dpl", "algoperf": "population/algoperf"}
LONGEST = 4.0
"""A method that needs more than this many times the fastest one's units gets no credit."""


def credit(times: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Each instance's part of the area under the performance profile, ``(seeds,)`` each.

    With ``r`` the time over the fastest method's, the profile is the share of instances with ``r <=
    tau``; its mean over tau in 1..4 is the mean of ``(4 - r) / 3`` clipped at 0 (Dahl et al. 2023).
    """
    fastest = np.min(list(times.values()), axis=0)
    reached = np.isfinite(fastest)
    out = {}
    for name, t in times.items():
        ratio = np.divide(t, fastest, out=np.full(len(t), np.inf), where=reached)
        out[name] = np.clip((LONGEST - ratio) / (LONGEST - 1), 0, 1)
    return out


def suite(options: Options) -> int:
    """Run the suite; without the public data nothing is measured, and it says so."""
    begun = time.time()
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    if not all(public_data.available(p) for p in DATA.values()):
        console.print(f"public data is needed: {', '.join(DATA.values())}")
        figures = [Figure("curves", None, "public data", None, "aim", "data not found")]
        return finish("curves", figures, results, begun, options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "learned.zip"
        provenance = train("curve-budget", path, "taskset", "cma", 5 if options.quick else 25)
        backend = build("curve-budget", "replay", "taskset")
        agent: Any = catalogue.make(path, backend.problem)
    results["training"] = {**provenance, "parameters": agent.weights.tolist()}
    names = options.agents or [n for n in catalogue.names("curve-budget") if n != "learned"]
    for scenario in options.cases or DATA:
        backend = build("curve-budget", "replay", scenario, options.seeds)
        times, losses = {}, {}
        for name in [LEARNED, *names]:
            entrant = agent if name == LEARNED else catalogue.make(name, backend.problem)
            outcomes = rollout(entrant, backend, np.arange(options.seeds))
            times[name] = entrant.memory.reached
            losses[name] = np.log(entrant.memory.objective)
        parts = credit(times)
        against = {k: paired(-parts[LEARNED], -v) for k, v in parts.items() if k != LEARNED}
        corrected = dict(zip(against, holm([d.p for d in against.values()]), strict=True))
        rows: list[list[Any]] = []
        for name in sorted(parts, key=lambda k: -parts[k].mean()):
            d = against.get(name)
            rows.append(
                [
                    name,
                    float(parts[name].mean()),
                    f"{np.isfinite(times[name]).mean():.0%}",
                    float(losses[name].mean()),
                    "" if d is None else f"{-d.mean:+.4f} [{-d.high:+.4f}, {-d.low:+.4f}]",
                    "" if d is None else f"{corrected[name]:.3f}",
                ]
            )
        columns = [
            "agent",
            "area of the profile",
            "target reached",
            "log final test loss",
            "learned minus it, 95 %",
            "p (Holm)",
        ]
        show(f"{scenario} ({options.seeds} paired seeds)", columns, rows)
        results[scenario] = {
            "table": {"columns": columns, "rows": rows},
            "area": {k: round(float(v.mean()), 5) for k, v in parts.items()},
            "minus learned's area": {
                k: {**as_dict(d), "p_holm": round(corrected[k], 5)} for k, d in against.items()
            },
        }
        best = max((k for k in parts if k != LEARNED), key=lambda k: parts[k].mean())
        d = against[best]
        figures.append(
            Figure(
                f"{scenario}: learned minus best rival, area",
                round(-d.mean, 5),
                "ahead",
                None if options.underpowered else d.verdict == "won",
                "aim",
                f"{d.verdict} [{-d.high:+.4f}, {-d.low:+.4f}] against {best}",
            )
        )
        spent = {int(o) for o in (outcomes[0].instance.total - outcomes[-1].left)}
        figures.append(
            Figure(
                f"{scenario}: every episode spent its budget",
                sorted(spent),
                "one number",
                len(spent) == 1,
            )
        )
    return finish("curves", figures, results, begun, options)
