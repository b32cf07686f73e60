"""``--suite fidelity``: held-out prompts and recorded runs against the simulator.

Three parts. Held-out prompts of the public trajectories, predicted from their first visits. Held-out
recorded runs of the tiny back end: their curves given what they tried. The same policies played in
free-running simulation: order and differences against the real seed interval.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import special
from scipy.stats import spearmanr

from allocgym.benchmarks.core.compare import paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.benchmarks.rollout_budget import own_runs
from allocgym.simulators.core import public_data
from allocgym.simulators.rollout_budget import calibration, recorded
from allocgym.simulators.rollout_budget.scenario import fit

EARLY = 8
GROUP = calibration.GROUP


def _rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.asarray(a) - np.asarray(b)) ** 2)))


def held_out_prompts() -> tuple[list[Figure], dict[str, Any]]:
    """Predict every prompt's later visits from its first, by fits to other prompts (three folds)."""
    k = np.rint(recorded.trajectories() * GROUP)
    p, mixed = calibration.cross_fitted(k, EARLY)
    later = k[:, EARLY:]
    truth = ((later > 0) & (later < GROUP)) * 1.0
    early = k[:, :EARLY]
    was = ((early > 0) & (early < GROUP)) * 1.0
    figures, data = [], {}

    def beat(name: str, ours: float, naive: float, what: str) -> None:
        data[name] = {"ours": round(ours, 5), "naive": round(naive, 5), "naive is": what}
        figures.append(
            Figure(
                f"held-out prompts: {name}", round(ours, 5), f"< {naive:.5f} ({what})", ours < naive
            )
        )

    beat(
        "RMSE of the mean-accuracy curve",
        _rmse(p.mean(0), later.mean(0) / GROUP),
        _rmse(np.full(later.shape[1], early.mean() / GROUP), later.mean(0) / GROUP),
        "mean of the early visits",
    )
    beat(
        "RMSE of the ratio per prompt, uniform",
        _rmse(mixed.mean(0), truth.mean(0)),
        _rmse(np.full(later.shape[1], was.mean()), truth.mean(0)),
        "early ratio",
    )
    # Per rollout under unequal counts: groups of 8 for prompts believed uncertain, of 2 for others.
    chance = mixed
    unsure = (early.mean(1) > 0.5) & (early.mean(1) < GROUP - 0.5)
    n = np.where(unsure, GROUP, 2)[:, None]
    differ = calibration.cross_fitted(k, EARLY, group=2)[1]
    pair = np.where(unsure[:, None], chance, differ)
    rng = np.random.default_rng(0)
    two = rng.hypergeometric(later.astype(int), (GROUP - later).astype(int), 2)
    real = np.where(unsure[:, None], truth, (two == 1) * 1.0)
    ours = (n * pair).sum(0) / n.sum()
    measured = (n * real).sum(0) / n.sum()
    first = rng.hypergeometric(early.astype(int), (GROUP - early).astype(int), 2)
    before = np.where(unsure[:, None], was, (first == 1) * 1.0)
    beat(
        "RMSE of the ratio per rollout, unequal groups",
        _rmse(ours, measured),
        _rmse(np.full(later.shape[1], ((n * before).sum(0) / n.sum()).mean()), measured),
        "early ratio",
    )
    beat(
        "Brier score of P(mixed)",
        float(np.mean((mixed - truth) ** 2)),
        float(np.mean((was.mean() - truth) ** 2)),
        "base rate",
    )
    edges = np.quantile(mixed, np.linspace(0, 1, 11))
    place = np.clip(np.searchsorted(edges, mixed, side="right") - 1, 0, 9)
    gaps, sizes = [], []
    for b in range(10):
        mine = place == b
        if mine.any():
            gaps.append(abs(mixed[mine].mean() - truth[mine].mean()))
            sizes.append(mine.mean())
    beat(
        "calibration error of P(mixed)",
        float(np.dot(gaps, sizes)),
        float(np.mean(np.abs(was.mean(1)[:, None] - truth.mean(1)[:, None]))),
        "each prompt's early ratio, mean absolute gap",
    )
    flat, flat_p = 1 - truth, 1 - mixed
    stay = (flat[:, 1:] * flat[:, :-1]).sum() / flat[:, :-1].sum()
    predicted = (flat_p[:, 1:] * flat_p[:, :-1]).sum() / flat_p[:, :-1].sum()
    beat(
        "zero-variance persistence, absolute error",
        abs(float(predicted - stay)),
        abs(float(flat.mean() - stay)),
        f"base rate; real {stay:.3f}, predicted {predicted:.3f}",
    )
    return figures, data


def recorded_curves() -> tuple[list[Figure], dict[str, Any]]:
    """Curves of recorded runs that informed no fit, given what they tried."""
    tiny = fit("tiny")
    runs = recorded.tiny_runs()
    known = set(tiny["calibration runs"])
    held = [r for r in runs if f"{r.name} {r.seed}" not in known]
    fam = np.array(tiny["families"])
    errors, flat = [], []
    for run in held:
        path = calibration.ability(
            *calibration.signals(run),
            tiny["eta"],
            tiny["own"],
            tiny["noise"],
            tiny["between"],
            tiny["limit"],
        )
        x = np.array(tiny["base"]) + np.array(tiny["slope"]) * path[run.logged][:, fam]
        curve = special.expit(x).mean(1)
        errors.append(np.mean((curve - run.accuracy) ** 2))
        start, end = run.accuracy[0], np.mean([r.accuracy[-1] for r in runs if r not in held])
        line = start + (end - start) * run.logged / run.logged[-1]
        flat.append(np.mean((line - run.accuracy) ** 2))
    ours, naive = float(np.sqrt(np.mean(errors))), float(np.sqrt(np.mean(flat)))
    figure = Figure(
        f"held-out recorded runs ({len(held)}): RMSE of held-out accuracy",
        round(ours, 5),
        f"< {naive:.5f} (straight line to the calibration runs' end)",
        ours < naive,
    )
    return [figure], {"ours": ours, "naive": naive}


def order(
    real: dict[str, np.ndarray], simulated: dict[str, float], what: str, musts: bool
) -> tuple[list[Figure], dict[str, Any]]:
    """Judge simulated differences by paired real ones.

    Args:
        real: areas by policy, ``(seeds,)``, the same seeds.
        simulated: mean area by policy.
        what: name of the set of runs.
        musts: whether ``anti`` last is a must here.
    """
    names = [n for n in real if n in simulated]
    pairs = ordered = inside = 0
    rows, data = [], {}
    for i, a in enumerate(names):
        for b in names[:i]:
            m = min(len(real[a]), len(real[b]))
            d = paired(-real[a][:m], -real[b][:m])
            low, high = -d.high, -d.low
            guess = simulated[a] - simulated[b]
            inside += low <= guess <= high
            verdict = "-"
            if d.verdict != "tie":
                pairs += 1
                right = guess * -d.mean > 0
                ordered += right
                verdict = "ordered" if right else "WRONG"
            rows.append(
                [
                    f"{a} - {b}",
                    f"{-d.mean:+.4f}",
                    f"[{low:+.4f}, {high:+.4f}]",
                    f"{guess:+.4f}",
                    verdict,
                ]
            )
            data[f"{a} - {b}"] = {
                "real": -d.mean,
                "low": low,
                "high": high,
                "simulated": guess,
                "verdict": verdict,
            }
    show(
        f"{what}: real differences of the area against simulated ones",
        ["pair", "real", "95 %", "simulated", ""],
        rows,
    )
    total = len(rows)
    last = min(names, key=lambda n: simulated[n])
    rank = float(
        spearmanr([float(np.mean(real[n])) for n in names], [simulated[n] for n in names])[0]
    )
    figures = [
        Figure(
            f"{what}: policy that comes last in simulation",
            last,
            "anti",
            last == "anti",
            "must" if musts else "aim",
        ),
        Figure(
            f"{what}: significant real pairs ordered by the simulator",
            f"{ordered}/{pairs}",
            "all",
            ordered == pairs,
            "aim",
            f"Spearman {rank:.2f} over {len(names)} policies",
        ),
        Figure(
            f"{what}: predicted differences inside the real interval",
            f"{inside}/{total}",
            "all",
            inside == total,
            "aim",
        ),
    ]
    return figures, {"pairs": data, "Spearman": rank}


def simulate_recorded(episodes: int) -> dict[str, float]:
    """Areas of the recorded policies in free-running simulation of the recorded set-up."""
    tiny = fit("tiny")
    out = {}
    for name, rule, weight in (
        ("uniform", "uniform", "rollout"),
        ("anti", "anti", "rollout"),
        ("posterior-greedy", "posterior-greedy", "rollout"),
        ("knapsack-beta", "knapsack-beta", "rollout"),
        ("knapsack-beta, prompt-weighted", "knapsack-beta", "prompt"),
        ("sequential", "sequential", "rollout"),
    ):
        out[name] = own_runs.simulate("tiny", tiny, rule, episodes, weight)
    return out


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    if public_data.available(recorded.TRAJECTORIES):
        more, results["held-out prompts"] = held_out_prompts()
        figures += more
        more, results["held-out runs"] = recorded_curves()
        figures += more
        real: dict[str, Any] = {}
        for run in recorded.tiny_runs():
            real.setdefault(run.name, []).append(run.curve)
        real = {k: np.array(v) for k, v in real.items()}
        simulated = simulate_recorded(2 if options.quick else 8)
        more, results["recorded runs"] = order(real, simulated, "recorded runs", True)
        figures += more
    else:
        console.print(f"fidelity: public data not found ({public_data.VARIABLE})")
    for regime in own_runs.REGIMES:
        made = own_runs.compare(regime, options.cells, 4 if options.quick else 12)
        if made is None:
            console.print(f"{regime}: no recorded runs of our own (run the real suite first)")
            continue
        measured, simulated = made
        more, results[f"own runs, {regime}"] = order(measured, simulated, f"own {regime}", False)
        figures += more
    return finish("fidelity", figures, results, begun, options)
