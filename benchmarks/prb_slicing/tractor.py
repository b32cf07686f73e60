"""``--suite tractor``: TRACTOR's nine published user mixes, paired seeds, its own score."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from allocgym.agents.prb_slicing.heuristics import Static
from allocgym.benchmarks.core.compare import as_dict, holm, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.benchmarks.prb_slicing.runs import play
from allocgym.envs.core.builder import make_problem
from allocgym.envs.prb_slicing.scenario import TRACTOR_MIXES

AGENTS = (
    "expert",
    "random",
    "equal",
    "user-proportional",
    "backlog-proportional",
    "max-weight",
    "demand-proportional",
    "urllc-first",
    "pi-hysteresis",
    "drift-plus-penalty",
    "learned",
    "tractor-dqn",
    "tractor-table",
)
PUBLISHED = {"expert": 0.6092, "random": 0.5878, "learned DQN": 0.6310}
PUBLISHED_CV = {"012": 0.1217, "022": 0.136, "114": 0.087, "121": 0.040, "123": 0.080}
"""Coefficient of variation of the expert over trials, where the publication's tables give it."""
GRID = (
    (1, 4, 12),
    (1, 3, 13),
    (1, 6, 10),
    (1, 2, 14),
    (1, 8, 8),
    (2, 4, 11),
    (2, 6, 9),
    (3, 3, 11),
)
"""Static splits tried for each mix, besides those of the rules."""


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seeds, horizon = options.seeds, 120 if options.quick else 240
    names = options.agents or list(AGENTS)
    mixes = options.cases or list(TRACTOR_MIXES)
    problem: Any = make_problem("prb-slicing")
    scores: dict[str, dict[str, np.ndarray]] = {n: {} for n in [*names, "best static"]}
    qos: dict[str, list[float]] = {n: [] for n in scores}
    splits = {}
    for k, mix in enumerate(mixes):
        arguments: dict[str, Any] = {
            "mix": mix,
            "horizon": horizon,
            "dtype": "float32",
            "first": 1000 * k,
        }
        for name in names:
            result = play(name, "tractor", seeds, **arguments)
            scores[name][mix] = result["tractor"]
            qos[name].append(float(result["qos"].mean()))
        tried = []
        for units in GRID:
            result = play(Static(problem, np.array(units)), "tractor", seeds, **arguments)
            tried.append((float(result["tractor"].mean()), units, result))
        _, best, result = max(tried, key=lambda t: t[0])
        splits[mix] = list(best)
        scores["best static"][mix] = result["tractor"]
        qos["best static"].append(float(result["qos"].mean()))
        console.print(f"{mix}: played")
    means = {n: float(np.mean([v.mean() for v in s.values()])) for n, s in scores.items()}
    pooled = {n: np.concatenate(list(s.values())) for n, s in scores.items()}
    against = {n: paired(-pooled[n], -pooled["expert"]) for n in scores if n != "expert"}
    corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
    cv = {
        n: {m: round(float(v.std(ddof=1) / v.mean()), 4) for m, v in s.items()}
        for n, s in scores.items()
    }
    rows: list[list[Any]] = []
    for n in sorted(means, key=lambda n: -means[n]):
        r = against.get(n)
        text = ["", ""] if r is None else [f"{-r.mean:+.4f}", f"[{-r.high:+.4f}, {-r.low:+.4f}]"]
        rows.append(
            [n, means[n], *text, float(np.mean(qos[n])), float(np.mean(list(cv[n].values())))]
        )
    show(
        f"TRACTOR's score, {len(mixes)} mixes x {seeds} paired seeds",
        ["agent", "score", "minus expert", "95 %", "qos", "mean CV over seeds"],
        rows,
    )
    gap = means["expert"] - means["random"]
    spread = f"published {PUBLISHED['expert'] - PUBLISHED['random']:.4f}"
    figures = [
        Figure(
            "expert minus random",
            round(gap, 4),
            "0.02 +- 0.01",
            abs(gap - 0.02) <= 0.01,
            detail=spread,
        )
    ]
    if "tractor-dqn" in means:
        lead = means["tractor-dqn"] - means["expert"]
        r = against["tractor-dqn"]
        figures.append(
            Figure(
                "our DQN minus expert (own state, moves)",
                round(lead, 4),
                ">= 0.0217",
                lead >= 0.0217,
                "aim",
                f"[{-r.high:+.4f}, {-r.low:+.4f}]",
            )
        )
    columns = ["agent", "score", "minus expert, 95 %", "qos", *mixes]
    listed = [
        [
            r[0],
            f"{r[1]:.4f}",
            f"{r[2]} {r[3]}",
            f"{r[4]:.4f}",
            *(f"{scores[r[0]][m].mean():.3f} (CV {cv[r[0]][m]:.3f})" for m in mixes),
        ]
        for r in rows
    ]
    results = {
        "table": {"columns": columns, "rows": listed},
        "score": {
            n: {m: round(float(v.mean()), 4) for m, v in s.items()} for n, s in scores.items()
        },
        "means": {n: round(v, 4) for n, v in means.items()},
        "qos": {n: round(float(np.mean(v)), 4) for n, v in qos.items()},
        "cv": cv,
        "published cv of the expert": PUBLISHED_CV,
        "published": PUBLISHED,
        "best static": splits,
        "minus expert (sign turned: losses)": {
            n: {**as_dict(r), "p_holm": round(corrected[n], 5)} for n, r in against.items()
        },
    }
    return finish("tractor", figures, results, begun, options)
