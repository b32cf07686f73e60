"""``--suite live``: frozen agents on real packets, and the simulator's word for the same episodes."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.benchmarks.core.compare import paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, run_cells, show
from allocgym.envs.core.builder import build
from allocgym.real_backend.prb_slicing.linux import probe

AGENTS = ("expert", "demand-proportional", "learned")
MIXES = ("123", "134", "323")
SETTING: dict[str, Any] = {"scenario": "traces", "split": "test", "load": 2.0, "channel": "slice"}


def episode(described: dict[str, Any]) -> dict[str, Any]:
    """Play one episode; totals of throughput and backlog, scores, and how exact the timing was."""
    engine, agent, mix, seed, horizon = (
        described[key] for key in ("engine", "agent", "mix", "seed", "horizon")
    )
    cell: Any = build("prb-slicing", engine, mix=mix, horizon=horizon, **SETTING)
    one = catalogue.make(agent, cell.problem)
    outcome = cell.reset(np.array([seed]))
    one.begin(cell.spec, seed)
    one.tell(outcome)
    served, backlog, sla, tractor, dropped = np.zeros(cell.n), np.zeros(cell.n), 0.0, 0.0, 0.0
    late = packets = 0.0
    while not outcome.done.all():
        outcome = cell.spend(one.ask())
        one.tell(outcome)
        served += outcome.served[0].sum(1)
        backlog += outcome.backlog[0].sum(1) / horizon
        dropped += float(outcome.dropped.sum())
        late += float(outcome.late[0, 1])
        packets += float(outcome.packets[0, 1])
        sla += float(one.memory.sla[0]) / horizon
        tractor += float(one.memory.tractor[0]) / horizon
    out = {
        "served": served.tolist(),
        "backlog": backlog.tolist(),
        "sla": sla,
        "tractor": tractor,
        "dropped": dropped,
        "late": late / max(packets, 1),
    }
    if engine == "linux":
        out["control ms"] = float(np.median(np.array(cell.control_ms).sum(1)))
        out["sender lag ms"] = cell.adapter.plane.sender_lag_ms
    cell.close()
    return out


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    found = probe()
    if "missing" in found:
        console.print(f"skipped: {found['missing']}")
        figures = [
            Figure(
                "throughput, live over simulated",
                None,
                "within 2 %",
                None,
                detail=f"skipped: {found['missing']}",
            )
        ]
        return finish("live", figures, found, begun, options)
    horizon = 60 if options.quick else 240
    mixes = options.cases or list(MIXES[:1] if options.quick else MIXES)
    agents = options.agents or list(AGENTS)
    folder = options.cells
    rows: list[dict[str, Any]] = [
        {"mix": mix, "seed": seed, "agent": agent}
        for mix, seed, agent in itertools.product(mixes, range(options.seeds), agents)
    ]
    for engine, name in (("linux", "live"), ("simpy", "simulated")):
        described = [{"v": 1, "engine": engine, "horizon": horizon, **row} for row in rows]
        # One at a time: the data plane is measured against the clock.
        for row, result in zip(rows, run_cells(described, episode, folder, 1), strict=True):
            row[name] = result
    figures = judge(rows, agents)
    for agent in agents:
        mine = [r for r in rows if r["agent"] == agent]
        each = max(abs(ratio([r])) for r in mine)
        console.print(f"{agent}: throughput off by {ratio(mine):+.4f} (an episode {each:.4f})")
    keys = ("sla", "tractor", "late", "dropped")
    show(
        "live and simulated",
        ["agent", *[f"{k}, {e}" for k in keys for e in ("live", "sim")]],
        [
            [
                a,
                *[
                    float(np.mean([r[e][k] for r in rows if r["agent"] == a]))
                    for k in keys
                    for e in ("live", "simulated")
                ],
            ]
            for a in agents
        ],
    )
    results = {"setting": SETTING, "horizon": horizon, "kernel": found, "episodes": rows}
    return finish("live", figures, results, begun, options)


def ratio(rows: list[dict[str, Any]]) -> float:
    """Throughput of episodes together, live over simulated, less 1."""
    live, told = (sum(sum(r[e]["served"]) for r in rows) for e in ("live", "simulated"))
    return float(live / told - 1)


def judge(rows: list[dict[str, Any]], agents: list[str]) -> list[Figure]:
    """Throughput (must), backlog and the order of agents (aims)."""
    throughput = [ratio([r]) for r in rows]
    # An agent in a closed loop answers what it measures, so single episodes drift apart with its
    # decisions: what is judged is an agent's throughput on a mix over all seeds.
    by_mix = {
        (r["agent"], r["mix"]): ratio(
            [o for o in rows if (o["agent"], o["mix"]) == (r["agent"], r["mix"])]
        )
        for r in rows
    }
    agent, mix = max(by_mix, key=lambda key: abs(by_mix[key]))
    worst = by_mix[agent, mix]
    real = sum(sum(r["live"]["backlog"]) for r in rows)
    told = sum(sum(r["simulated"]["backlog"]) for r in rows)
    figures = [
        Figure(
            "throughput of an agent on a mix, live over simulated, furthest off",
            round(worst, 4),
            "within 0.02",
            abs(worst) <= 0.02,
            detail=f"{agent} on {mix}; all {ratio(rows):+.4f}; single episodes up to "
            f"{max(map(abs, throughput)):.4f}",
        ),
        Figure(
            "mean backlog, live over simulated",
            round(real / told - 1, 4),
            "within 0.10",
            abs(real / told - 1) <= 0.1,
            "aim",
        ),
        Figure(
            "control step on the plane, median ms",
            round(float(np.median([r["live"]["control ms"] for r in rows])), 2),
            "reported",
            True,
            "aim",
        ),
    ]
    wrong, judged = [], 0
    for one, other in itertools.combinations(agents, 2):
        values = {
            (a, e): np.array([r[e]["sla"] for r in rows if r["agent"] == a])
            for a in (one, other)
            for e in ("live", "simulated")
        }
        d = paired(-values[one, "live"], -values[other, "live"])
        if d.verdict == "tie":
            continue
        judged += 1
        predicted = values[one, "simulated"].mean() - values[other, "simulated"].mean()
        if np.sign(predicted) != np.sign(-d.mean):
            wrong.append(f"{one} and {other}")
    figures.append(
        Figure(
            "pairs that differ live and are ordered the same",
            f"{judged - len(wrong)}/{judged}",
            "all",
            not wrong,
            "aim",
            "; ".join(wrong),
        )
    )
    return figures
