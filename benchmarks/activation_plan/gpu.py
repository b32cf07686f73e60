"""``--suite gpu``: pinned copies, random plans, agents against rules on GPT-2 124M (CUDA)."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from allocgym.agents.activation_plan import rule as plans
from allocgym.benchmarks.activation_plan.activation import MARGIN, many
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.envs.activation_plan.profile import profile_from_json, timeline
from allocgym.envs.core.errors import missing_extra

MODEL = "gpt2-124m"
SHARES = (0.2, 0.5, 0.8)
RULES = ("cheapest-recompute", "recompute-all", "torch-dp", "learned", "plan-search")
NAMES = (
    "pinned copies, most GB/s to the host",
    "random plans: largest error of the peak",
    "random plans: rank correlation of step time",
    "our largest peak over the budget",
    "budgets where plan-search is ahead of cheapest-recompute",
)


def suite(options: Options) -> int:
    """Run the suite, or say that there is nothing to run it on."""
    begun = time.time()
    try:
        from allocgym.real_backend.activation_plan import gpu
    except ImportError as error:
        raise missing_extra("torch", "real") from error
    if not gpu.available():
        console.print("gpu: skipped, no CUDA device is at hand; nothing is measured or written")
        figures = [Figure(name, None, "a CUDA device", None, "aim") for name in NAMES]
        return finish("gpu", figures, {}, begun, dataclasses.replace(options, out=None))
    figures, results = [], {}
    rates = gpu.pinned_rates()
    columns = ["MiB", "to the device GB/s", "to the host GB/s"]
    rows = [[r["bytes"] / 2**20, r["to_device"] / 1e9, r["to_host"] / 1e9] for r in rates]
    show("pinned copies", columns, rows)
    results["copies"] = {"table": {"columns": columns, "rows": rows}}
    best = max(r["to_host"] for r in rates) / 1e9
    figures.append(Figure(NAMES[0], round(best, 2), "printed", True, "aim"))
    profile = _random(options, figures, results)
    _budgets(options, profile, figures, results)
    return finish("gpu", figures, results, begun, options)


def _random(options: Options, figures: list[Figure], results: dict[str, Any]) -> dict[str, Any]:
    """Random plans, predicted from a profile calibrated on other plans."""
    from allocgym.real_backend.activation_plan.calibration import calibrate
    from allocgym.real_backend.activation_plan.measure import measure

    count, repeats = (8, 10) if options.quick else (20, 40)
    profile = calibrate(MODEL, repeats, device="cuda")
    n = len(profile["size"])
    rng = np.random.default_rng(20)
    random = [rng.choice(3, n, p=rng.dirichlet(np.ones(3))).tolist() for _ in range(count)]
    got = measure(MODEL, random, repeats, device="cuda")
    seconds, peak = timeline(many(profile_from_json(profile, n, 1.0), count), np.array(random))
    measured = np.array([r["peak"] for r in got["plans"][1:]])
    took = np.array([r["seconds"] for r in got["plans"][1:]])
    error = np.abs(peak / measured - 1)
    rank = float(spearmanr(seconds, took)[0])
    figures += [
        Figure(
            NAMES[1],
            round(float(error.max()), 4),
            "<= 0.10",
            bool(error.max() <= 0.1),
            "aim",
            got["machine"],
        ),
        Figure(NAMES[2], round(rank, 3), ">= 0.9", rank >= 0.9, "aim", f"{count} plans"),
    ]
    results["random"] = {
        "machine": got["machine"],
        "profile": profile,
        "plans": random,
        "peak": measured.tolist(),
        "predicted peak": peak.tolist(),
        "seconds": took.tolist(),
        "predicted seconds": seconds.tolist(),
    }
    return profile


def _budgets(
    options: Options, profile: dict[str, Any], figures: list[Figure], results: dict[str, Any]
) -> None:
    """The agents against the rules at three budgets, all measured."""
    from allocgym.real_backend.activation_plan.measure import measure

    n = len(profile["size"])
    wanted = []
    for share in SHARES:
        p = profile_from_json(profile, n, share)
        for name in RULES:
            aim = plans.tighten(p, MARGIN) if name in ("learned", "plan-search") else p
            wanted.append((share, name, plans.RULES[name](aim), float(p.budget[0])))
    unique = list({tuple(map(int, w[2])): None for w in wanted})
    got = measure(MODEL, [list(u) for u in unique], 10 if options.quick else 40, device="cuda")
    keep, by_plan = got["plans"][0], {tuple(r["plan"]): r for r in got["plans"][1:]}
    rows, at = [], {}
    for share, name, action, budget in wanted:
        r = by_plan[tuple(map(int, action))]
        added, peak = 100 * (r["seconds"] / keep["seconds"] - 1), r["peak"] / budget
        rows.append([share, name, added, peak, int((action == 2).sum())])
        at[share, name] = added, peak
    columns = ["budget", "rule", "added time %", "peak / budget", "groups offloaded"]
    show(f"{MODEL} on {got['machine']}", columns, rows)
    results["budgets"] = {"table": {"columns": columns, "rows": rows}}
    most = max(peak for (_, name), (_, peak) in at.items() if name in ("learned", "plan-search"))
    ahead = sum(at[s, "plan-search"][0] < at[s, "cheapest-recompute"][0] for s in SHARES)
    figures += [
        Figure(NAMES[3], round(most, 4), "<= 1", most <= 1),
        Figure(NAMES[4], ahead, f"{len(SHARES)}", ahead == len(SHARES), "aim"),
    ]
