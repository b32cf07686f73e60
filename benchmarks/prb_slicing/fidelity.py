"""``--suite fidelity``: the simulator against 36.213's table, recorded KPIs and itself."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np

from allocgym.agents.prb_slicing.heuristics import Static
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.benchmarks.prb_slicing.runs import play
from allocgym.envs.core.builder import build
from allocgym.envs.prb_slicing.scores import user_scores
from allocgym.simulators.prb_slicing import calibration, tables

RECORDED = {0.5: 0.33, 1.0: 0.83, 2.0: 0.94, 3.0: 0.98, 5.0: 0.99}
"""URLLC score by groups per user (upper end of each bin) in 52,716 recorded transitions."""


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    rate = tables.bits(18, 14) / 1000
    figures = [
        Figure(
            "14 blocks at MCS 18, Mbit/s",
            rate,
            "4.584",
            abs(rate - 4.584) < 1e-9,
            detail="recorded, saturated: 4.585",
        )
    ]
    by_mcs, rows, information = bits_per_block()
    show(
        "bits per block and TTI, recorded over 36.213's table",
        ["MCS", "recorded", "table, 14 blocks", "error", "95 %", "rows"],
        rows,
    )
    worst = max((abs(e), m) for m, e in by_mcs.items() if m != 10)
    figures.append(
        Figure(
            "bits per block, MCS 1-22: MCS beyond 5 % (10: 8 %)",
            len(information["beyond"]),
            "0",
            not information["beyond"],
            detail=f"largest {worst[0]:.3f} at MCS {worst[1]}; MCS 10 {by_mcs[10]:+.3f}; "
            f"{len(by_mcs)} MCS with rows; held-out rms {information['held-out rms']}",
        )
    )
    curve = urllc_curve(8 if options.quick else 30)
    ordered = list(curve.values())
    rising = all(b >= a - 1e-3 for a, b in itertools.pairwise(ordered))
    distance = {k: round(curve[k] - v, 3) for k, v in RECORDED.items()}
    figures.append(
        Figure(
            "URLLC score over groups per user",
            [round(v, 3) for v in ordered],
            "monotone",
            rising,
            detail=f"minus recorded: {distance}",
        )
    )
    for name, result in twin_and_simpy(6 if options.quick else 12).items():
        figures.append(
            Figure(
                f"twin p99 over SimPy p99, URLLC, {name}",
                round(result["ratio"], 3),
                "within 10 %",
                abs(result["ratio"] - 1) <= 0.1,
                detail=f"{result['twin']:.1f} and {result['simpy']:.1f} ms",
            )
        )
    results = {
        "bits error by MCS": by_mcs,
        "bits": information,
        "urllc curve": curve,
        "recorded curve": RECORDED,
    }
    return finish("fidelity", figures, results, begun, options)


def expected_bits(mcs: np.ndarray, spread: float) -> np.ndarray:
    """Table bits per block at 14 blocks for a row's mean MCS, MCS varying within the row."""
    per = np.array([tables.bits(m, 14) / 14 for m in range(29)])
    steps = np.linspace(-3, 3, 61)
    weight = np.exp(-0.5 * steps**2) / np.exp(-0.5 * steps**2).sum()
    grid = np.arange(0, 28.01, 0.05)
    # No MCS lies beyond 0 or 28, and the row's mean stays its mean.
    room = np.minimum(spread, np.minimum(grid, 28 - grid) / 3)
    around = np.clip(grid[:, None] + room[:, None] * steps, 0, 28)
    smooth = (np.interp(around, np.arange(29), per) * weight).sum(1)
    return np.interp(mcs, grid, smooth)


def bits_per_block() -> tuple[dict[int, float], list[list[Any]], dict[str, Any]]:
    """Recorded over table bits per block, by MCS, minus 1.

    A KPI row is a mean over 250 TTIs: rows count to their nearest MCS and the table is averaged
    over the MCS within a row, whose spread is the one parameter (least largest error in every
    second run). An error counts as beyond its bound where the 95 % interval of the recorded
    median is.
    """
    rows = calibration.kpi_rows()
    rows = rows[(rows["granted"] >= 100) & (rows["rate"] > 0) & (rows["mcs"] > 0.5)]
    files = sorted(rows["file"].unique())
    fitted = rows["file"].isin(files[::2]).to_numpy()
    mcs = rows["mcs"].to_numpy(float)
    measured = rows["rate"].to_numpy(float) * 0.25e6 / rows["granted"].to_numpy(float)
    near = np.rint(mcs).astype(int)

    def errors(spread: float, use: np.ndarray) -> dict[int, float]:
        ratio = measured / expected_bits(mcs, spread)
        found = {m: ratio[use & (near == m)] for m in range(1, 23)}
        return {m: float(np.median(v)) - 1 for m, v in found.items() if v.size >= 10}

    spreads = np.arange(0, 1.51, 0.25)
    costs = [max(abs(e) for m, e in errors(s, fitted).items() if m != 10) for s in spreads]
    spread = float(spreads[int(np.argmin(costs))])
    rng = np.random.default_rng(0)
    ratio = measured / expected_bits(mcs, spread)
    out, table, beyond = {}, [], []
    for m, error in errors(spread, np.ones(len(mcs), bool)).items():
        values = ratio[near == m]
        draws = np.median(rng.choice(values, (400, min(values.size, 2000))), 1) - 1
        low, high = np.quantile(draws, [0.025, 0.975])
        bound = 0.08 if m == 10 else 0.05
        if low > bound or high < -bound:
            beyond.append(m)
        out[m] = round(error, 4)
        table.append(
            [
                m,
                float(np.median(measured[near == m])),
                tables.bits(m, 14) / 14,
                f"{error:+.3f}",
                f"[{low:+.3f}, {high:+.3f}]",
                int(values.size),
            ]
        )
    held = errors(spread, ~fitted)
    information = {
        "spread of MCS within a row": spread,
        "beyond": beyond,
        "held-out rms": round(float(np.sqrt(np.mean(np.square(list(held.values()))))), 4),
    }
    return out, table, information


def urllc_curve(seeds: int) -> dict[float, float]:
    """Mean TRACTOR score of URLLC users by groups per user (two users, all recorded traces)."""
    curve = {}
    for per in RECORDED:
        mix, groups = ("121", max(round(2 * per), 1))
        made: Any = build(
            "prb-slicing", "twin", "tractor", seeds, mix=mix, horizon=240, dtype="float32"
        )
        agent = Static(made.problem, np.array([1, groups, 16 - groups]))
        outcome = made.reset(np.arange(seeds))
        agent.begin(made.spec)
        agent.tell(outcome)
        total, count = 0.0, 0
        while not outcome.done.all():
            outcome = made.spend(agent.ask())
            score, _ = user_scores(outcome)
            total += float(score[:, 1, :2].mean())
            count += 1
        curve[per] = round(total / count, 4)
    return curve


def twin_and_simpy(seeds: int) -> dict[str, dict[str, float]]:
    """URLLC's p99 in the twin and in SimPy on shared draws under the expert."""
    out = {}
    cases: dict[str, dict[str, Any]] = {
        "generated": {"scenario": "generated"},
        "recorded, load 1": {"scenario": "traces", "load": 1.0},
        "recorded, load 3": {"scenario": "traces", "load": 3.0},
        "recorded, load 8": {"scenario": "traces", "load": 8.0},
    }
    for name, arguments in cases.items():
        found = {
            engine: play(
                "expert",
                seeds=seeds,
                histogram=True,
                backend=engine,
                mix="134",
                horizon=120,
                **arguments,
            )["delays"]["p99"]
            for engine in ("twin", "simpy")
        }
        out[name] = {**found, "ratio": found["twin"] / found["simpy"]}
    return out
