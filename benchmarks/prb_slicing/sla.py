"""``--suite sla``: constraints instead of TRACTOR's score, loads 1, 3 and 8, held-out traces."""

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
from allocgym.envs.prb_slicing.problem import all_splits

LOADS = (1.0, 3.0, 8.0)
MIXES = ("112", "123", "134", "323")
RIVALS = ("demand-proportional", "urllc-first", "best static")
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
)
KEYS = ("sla", "qos", "tractor", "late10", "late50", "goodput", "share", "drops", "moved", "bytes")


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seeds, horizon = options.seeds, 60 if options.quick else 120
    names = options.agents or list(AGENTS)
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    for load in LOADS:
        found = one_load(load, seeds, horizon, names, options.quick)
        results[f"load {load:g}"] = summarise(found)
        table(load, found)
        figures += judge(load, found)
    return finish("sla", figures, results, begun, options)


def one_load(
    load: float, seeds: int, horizon: int, names: list[str], quick: bool
) -> dict[str, dict[str, Any]]:
    """Every agent on every mix at one load; per agent, arrays over mixes and seeds."""
    problem: Any = make_problem("prb-slicing")
    found: dict[str, dict[str, Any]] = {}

    def enter(name: str, result: dict[str, Any]) -> None:
        entry = found.setdefault(name, {k: [] for k in (*KEYS, "ms", "delays")})
        for key in entry:
            entry[key].append(result[key])

    for k, mix in enumerate(MIXES):
        common: dict[str, Any] = {
            "scenario": "traces",
            "split": "test",
            "load": load,
            "mix": mix,
            "horizon": horizon,
            "dtype": "float32",
            "first": 1000 * k,
        }
        arguments: dict[str, Any] = {**common, "seeds": seeds, "histogram": True}
        for name in names:
            enter(name, play(name, **arguments))
        enter("clairvoyant greedy", play("clairvoyant-greedy", **arguments))
        pool = play("equal", **arguments, pool=True)
        enter("unsliced pool", pool)
        # Every second split (sixth with --quick), by scores on the training traces of this mix.
        tried = [
            (
                play(
                    Static(problem, units), **{**common, "split": "train", "horizon": 60}, seeds=8
                )["sla"].mean(),
                units,
            )
            for units in all_splits(17, 3)[:: 6 if quick else 2]
        ]
        best = max(tried, key=lambda t: t[0])[1]
        enter("best static", play(Static(problem, best, "best static"), **arguments))
        console.print(f"load {load:g}, mix {mix}: played; best static {best.tolist()}")
    for entry in found.values():
        for key in KEYS:
            entry[key] = np.concatenate(entry[key])
    return found


def summarise(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Means for the JSON, and the learned agent's paired differences."""
    means = {
        name: {
            **{k: round(float(e[k].mean()), 5) for k in KEYS},
            "decision ms": round(float(np.mean(e["ms"])), 4),
            **{q: round(float(np.nanmax([d[q] for d in e["delays"]])), 2) for q in e["delays"][0]},
        }
        for name, e in found.items()
    }
    out: dict[str, Any] = {"means": means, "table": as_table(means)}
    if "learned" in found:
        ours = found["learned"]["sla"]
        against = {n: paired(-ours, -e["sla"]) for n, e in found.items() if n != "learned"}
        corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
        out["learned minus (sign turned: losses)"] = {
            n: {**as_dict(r), "p_holm": round(corrected[n], 5)} for n, r in against.items()
        }
    return out


COLUMNS = {
    "sla": "sla",
    "late10": "URLLC late > 10 ms",
    "late50": "> 50 ms",
    "p99": "p99 ms",
    "p99.9": "p99.9 ms",
    "goodput": "eMBB Mbit/s",
    "share": "eMBB share",
    "drops": "drops MB",
    "moved": "moves",
    "decision ms": "decision ms",
    "tractor": "TRACTOR score",
}


def as_table(means: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Means as a table for the docs, best `sla` first."""
    order = sorted(means, key=lambda n: -means[n]["sla"])
    rows = [[n, *(f"{means[n][k]:.4g}" for k in COLUMNS)] for n in order]
    return {"columns": ["agent", *COLUMNS.values()], "rows": rows}


def table(load: float, found: dict[str, dict[str, Any]]) -> None:
    """Print one load."""
    rows = []
    for name in sorted(found, key=lambda n: -float(found[n]["sla"].mean())):
        e = found[name]
        worst = {q: float(np.nanmax([d[q] for d in e["delays"]])) for q in ("p99", "p99.9")}
        rows.append(
            [
                name,
                float(e["sla"].mean()),
                float(e["late10"].mean()),
                float(e["late50"].mean()),
                f"{worst['p99']:.1f}",
                f"{worst['p99.9']:.1f}",
                float(e["goodput"].mean()),
                float(e["share"].mean()),
                f"{e['drops'].mean():.2f}",
                f"{e['moved'].mean():.2f}",
                f"{np.mean(e['ms']):.3f}",
            ]
        )
    show(
        f"load {load:g}: held-out traces, {len(MIXES)} mixes, {len(next(iter(found.values()))['sla'])} "
        "paired seeds",
        [
            "agent",
            "sla",
            "late > 10 ms",
            "> 50 ms",
            "p99 ms",
            "p99.9 ms",
            "eMBB Mbit/s",
            "eMBB share",
            "drops MB",
            "moves",
            "decision ms",
        ],
        rows,
    )


def judge(load: float, found: dict[str, dict[str, Any]]) -> list[Figure]:
    """Bounds (musts) and the learned agent against its rivals (aims)."""
    greedy, pool = found["clairvoyant greedy"], found["unsliced pool"]
    sliced = {n: e for n, e in found.items() if n not in ("clairvoyant greedy", "unsliced pool")}
    near = max(sliced, key=lambda n: float(sliced[n]["sla"].mean()))
    lead = paired(-greedy["sla"], -sliced[near]["sla"])
    most = max(sliced, key=lambda n: float(sliced[n]["bytes"].mean()))
    ratio = float(pool["bytes"].sum() / sliced[most]["bytes"].sum())
    figures = [
        Figure(
            f"load {load:g}: clairvoyant greedy minus best other, sla",
            round(-lead.mean, 4),
            ">= 0",
            lead.mean <= 0,
            detail=f"against {near} [{-lead.high:+.4f}, {-lead.low:+.4f}]",
        ),
        Figure(
            f"load {load:g}: unsliced pool over best other, bytes delivered",
            round(ratio, 5),
            ">= 0.999",
            ratio >= 0.999,
            detail=f"against {most}",
        ),
    ]
    if "learned" not in found:
        return figures
    for rival in RIVALS:
        r = paired(-found["learned"]["sla"], -found[rival]["sla"])
        wanted = "ahead" if load > 1 else "not behind"
        met = r.verdict == "won" or (load == 1 and r.verdict == "tie")
        figures.append(
            Figure(
                f"load {load:g}: learned minus {rival}, sla",
                round(-r.mean, 4),
                wanted,
                met,
                "aim",
                f"{r.verdict} [{-r.high:+.4f}, {-r.low:+.4f}]",
            )
        )
    return figures
