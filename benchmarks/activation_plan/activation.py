"""``--suite activation`` (plans against rules) and ``--suite real`` (random plans), both for real."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from allocgym.agents.activation_plan import rule as plans
from allocgym.benchmarks.core.compare import as_dict, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.envs.activation_plan.profile import Profile, profile_from_json, timeline
from allocgym.simulators.activation_plan.profile import profiles, recorded
from allocgym.simulators.activation_plan.scenario import RECORDED, SCENARIOS

SHARES = (0.1, 0.3, 0.5, 0.7)
"""Budgets between everything recomputed (0) and everything kept (1)."""
MARGIN = 0.04
"""Our plans aim this far below the budget on real runs: twice the largest error seen of a fitted peak."""
OTHERS = (
    "torch-dp",
    "torch-greedy",
    "torch-ilp",
    "cheapest-recompute",
    "offload-all",
    "recompute-all",
)
OURS = ("learned", "plan-search")
RULES = (*OTHERS, *OURS)


def many(profile: Profile, count: int) -> Profile:
    """The same step ``count`` times."""
    return profile.rows(np.zeros(count, np.int64))


def simulated(scenario: str) -> list[dict[str, Any]]:
    """Added time and peak of every rule at every budget."""
    rows = []
    for data in profiles(SCENARIOS[scenario]):
        for share in SHARES:
            p = profile_from_json(data, max(32, len(data["size"])), share)
            keep = timeline(p, plans.keep_all(p)[None])[0][0]
            for name in RULES:
                seconds, peak = timeline(p, plans.RULES[name](p)[None])
                rows.append(
                    {
                        "model": data["model"],
                        "share": share,
                        "rule": name,
                        "added": float(seconds[0] / keep - 1),
                        "peak": float(peak[0] / p.budget[0]),
                    }
                )
    return rows


def executed(models: list[str], repeats: int) -> list[dict[str, Any]]:
    """The same on real runs: measured peak over budget, measured added time."""
    from allocgym.real_backend.activation_plan.measure import measure

    rows = []
    for model in models:
        data = recorded(model)
        n = len(data["size"])
        wanted = []
        for share in SHARES:
            p = profile_from_json(data, n, share)
            for name in RULES:
                aim = plans.tighten(p, MARGIN) if name in OURS and share > 0.05 else p
                wanted.append((share, name, plans.RULES[name](aim), float(p.budget[0])))
        unique = {tuple(map(int, w[2])): None for w in wanted}
        got = measure(model, [list(u) for u in unique], repeats)
        by_plan = {tuple(r["plan"]): r for r in got["plans"][1:]}
        keep = got["plans"][0]
        for share, name, action, budget in wanted:
            r = by_plan[tuple(map(int, action))]
            rows.append(
                {
                    "model": model,
                    "share": share,
                    "rule": name,
                    "plan": list(map(int, action)),
                    "added": r["seconds"] / keep["seconds"] - 1,
                    "peak": r["peak"] / budget,
                    "seconds": r["seconds"],
                    "equal": r["equal"],
                }
            )
    return rows


def _compare(rows: list[dict[str, Any]], ours: str) -> dict[str, Any]:
    """One of ours minus each rule where the rule's own peak was within the budget too."""
    at = {(r["model"], r["share"], r["rule"]): r for r in rows}
    out = {}
    for name in OTHERS:
        d, over = [], 0
        for (model, share, rule), r in at.items():
            if rule != name:
                continue
            if r["peak"] > 1 + 1e-9:
                over += 1
                continue
            d.append(at[model, share, ours]["added"] - r["added"])
        if d:
            out[name] = {**as_dict(paired(np.array(d), np.zeros(len(d)))), "over budget": over}
        else:
            out[name] = {"n": 0, "over budget": over}
    return out


def _figures(title: str, ours: str, versus: dict[str, Any]) -> list[Figure]:
    figures = []
    for name, d in versus.items():
        if not d["n"]:
            text, met = "never within the budget", None
        else:
            text = f"{d['wins']} better, {d['losses']} worse of {d['n']}"
            met = d["high"] < 0
        figures.append(
            Figure(
                f"{title}: added time, {ours} minus {name}",
                round(100 * d["mean"], 2) if d["n"] else None,
                "< 0 points, interval below 0",
                met,
                "aim",
                f"{text}; it was over the budget {d['over budget']} times",
            )
        )
    return figures


def _table(rows: list[dict[str, Any]]) -> dict[str, Any]:
    columns = [
        "rule",
        "budget",
        "cases",
        "within budget",
        "mean peak / budget",
        "mean added time %",
    ]
    out = []
    for name in RULES:
        for share in SHARES:
            some = [r for r in rows if r["rule"] == name and r["share"] == share]
            inside = sum(r["peak"] <= 1 + 1e-9 for r in some)
            out.append(
                [
                    name,
                    share,
                    len(some),
                    inside,
                    float(np.mean([r["peak"] for r in some])),
                    100 * float(np.mean([r["added"] for r in some])),
                ]
            )
    return {"columns": columns, "rows": out}


def suite(options: Options) -> int:
    """``--suite activation``."""
    begun = time.time()
    theory = simulated("gpt-gpu-test") + simulated("recorded")
    models = list(options.cases or (RECORDED[:1] if options.quick else RECORDED))
    real_rows = executed(models, 2 if options.quick else 3)
    figures, results = [], {}
    for title, rows in (("simulated", theory), ("real runs", real_rows)):
        table = _table(rows)
        show(f"activation plans, {title}", table["columns"], table["rows"])
        peaks = [r["peak"] for r in rows if r["rule"] in OURS]
        inside = max(peaks) <= 1 + 1e-9
        figures.append(
            Figure(
                f"{title}: our largest peak over the budget",
                round(max(peaks), 4),
                "<= 1",
                inside,
                detail=f"{len(peaks)} runs",
            )
        )
        against = {ours: _compare(rows, ours) for ours in OURS}
        for ours, versus in against.items():
            figures += _figures(title, ours, versus)
        results[title] = {"table": table, "against": against, "rows": rows}
    figures.append(
        Figure(
            "real runs: plans whose gradients differ from keep-all's",
            sum(not r["equal"] for r in real_rows),
            "0",
            all(r["equal"] for r in real_rows),
        )
    )
    return finish("activation", figures, results, begun, options)


def real(options: Options) -> int:
    """``--suite real``."""
    from allocgym.real_backend.activation_plan.measure import measure

    begun = time.time()
    models = list(options.cases or (RECORDED[:1] if options.quick else RECORDED))
    count, repeats = (8, 2) if options.quick else (20, 5)
    figures, rows, results = [], [], {}
    for model in models:
        data = recorded(model)
        n = len(data["size"])
        rng = np.random.default_rng(20)
        random = [rng.choice(3, n, p=rng.dirichlet(np.ones(3))).tolist() for _ in range(count)]
        got = measure(model, random, repeats)["plans"][1:]
        p = many(profile_from_json(data, n, 1.0), count)
        seconds, peak = timeline(p, np.array(random))
        measured = np.array([r["peak"] for r in got])
        took = np.array([r["seconds"] for r in got])
        error = np.abs(peak / measured - 1)
        rank = float(spearmanr(seconds, took)[0])
        figures += [
            Figure(
                f"{model}: gradients that differ",
                sum(not r["equal"] for r in got),
                "0",
                all(r["equal"] for r in got),
                detail=f"{count} random plans, to the bit",
            ),
            Figure(
                f"{model}: largest error of the peak",
                round(float(error.max()), 4),
                "<= 0.10",
                bool(error.max() <= 0.1),
            ),
            Figure(
                f"{model}: rank correlation of step time",
                round(rank, 3),
                ">= 0.9",
                rank >= 0.9,
                "aim",
                f"mean error {np.abs(seconds / took - 1).mean():.3f}",
            ),
        ]
        rows.append(
            [
                model,
                count,
                float(measured.min() / 2**20),
                float(measured.max() / 2**20),
                100 * float(error.max()),
                rank,
                100 * float(np.abs(seconds / took - 1).mean()),
            ]
        )
        results[model] = {
            "plans": random,
            "peak": measured.tolist(),
            "predicted peak": peak.tolist(),
            "seconds": took.tolist(),
            "predicted seconds": seconds.tolist(),
        }
    columns = [
        "model",
        "plans",
        "least peak MB",
        "largest",
        "peak error % (max)",
        "rank of step time",
        "time error % (mean)",
    ]
    show("random plans on real runs", columns, rows)
    results["table"] = {"columns": columns, "rows": rows}
    return finish("real", figures, results, begun, options)
