"""``--suite simulator``: every allocator on every preset, paired seeds, three axes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget import catalogue
from allocgym.benchmarks.core.compare import Paired, as_dict, holm, normalised_gain, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, run_cells, show
from allocgym.benchmarks.rollout_budget import episodes
from allocgym.benchmarks.rollout_budget.cells import content
from allocgym.envs.core.scenario import choose
from allocgym.envs.rollout_budget import curves
from allocgym.simulators.rollout_budget.scenario import SCENARIOS

BATTLES = ("hetero-cost", "prereq", "hard-tail")
UNIFORMS = ("uniform", "uniform-16", "uniform-32")
TUNING_SEEDS = 20
NEAREST = {
    ("hetero-cost", "seconds"): "hetero-cost-tokens",
    ("hetero-cost", "rollouts"): "hard-tail-rollouts",
    ("qwen1.5b-dsr", "rollouts"): "hard-tail-rollouts",
    ("tiny", "rollouts"): "hard-tail-rollouts",
    ("homogeneous", "rollouts"): "hard-tail-rollouts",
}
"""Which shipped agent stands in where none was trained for a preset and an axis."""
Scores = dict[str, dict[str, dict[str, np.ndarray]]]


def shipped_name(scenario: str, axis: str) -> str:
    """Name of the shipped agent for a preset and an axis."""
    chosen = f"{scenario}-{axis}"
    if chosen in catalogue.SHIPPED:
        return f"learned:{chosen}"
    return "learned:" + NEAREST.get(
        (scenario, axis), NEAREST.get((scenario, "rollouts"), f"{scenario}-rollouts")
    )


def better(ours: np.ndarray, theirs: np.ndarray) -> Paired:
    """Paired difference of errors (1 - accuracy): negative means we are ahead."""
    return paired(1 - np.asarray(ours), 1 - np.asarray(theirs))


def play_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Run one agent on one preset; a module-level function for `run_cells`."""
    asked = choose(SCENARIOS, cell["scenario"], cell.get("overrides", {}))
    made = asked.stretched(curves.LONGER)
    data = episodes.play(cell["agent"], made, cell.get("first", 0) + np.arange(cell["seeds"]))
    return {k: v.round(6).tolist() for k, v in data.items()}


def cell_of(scenario: str, agent: str, seeds: int, first: int, overrides: Any) -> dict[str, Any]:
    """Describe a cell; an agent file enters by its content."""
    cell = {"v": 3, "scenario": scenario, "agent": agent, "seeds": seeds, **content(agent)}
    if first:
        cell["first"] = first
    if overrides:
        cell["overrides"] = overrides
    return cell


def compare(
    scenario: str,
    names: list[str],
    seeds: int,
    overrides: dict[str, Any] | None = None,
    folder: Path | None = None,
    first: int = 0,
) -> Scores:
    """Scores by agent and axis on the same seeds; uniform sets where each axis ends."""
    names = list(dict.fromkeys(["uniform", *names]))
    cells = [cell_of(scenario, name, seeds, first, overrides) for name in names]
    if folder is None:
        raw = [play_cell(cell) for cell in cells]
    else:
        raw = run_cells(cells, play_cell, folder, 1)
    data = [{k: np.asarray(v) for k, v in r.items()} for r in raw]
    limits = episodes.limits_of(data[0], choose(SCENARIOS, scenario, overrides or {}).horizon)
    out = {}
    for name, one in zip(names, data, strict=True):
        out[name] = episodes.scores(one, limits)
        out[name]["ratios"] = {k: one[k][:, 1:].mean(1) for k in ("prompt_ratio", "rollout_ratio")}
    return out


def show_comparison(scenario: str, scores: Scores, axis: str) -> None:
    """Print one axis of one preset."""
    uniform, oracle = scores["uniform"][axis], scores.get("oracle", scores["uniform"])[axis]
    rows = []
    for name, score in sorted(scores.items(), key=lambda x: -x[1][axis]["area"].mean()):
        d = better(score[axis]["area"], uniform["area"])
        gain = normalised_gain(score[axis]["area"], uniform["area"], oracle["area"])
        rows.append(
            [
                name,
                float(score[axis]["area"].mean()),
                float(score[axis]["final"].mean()),
                f"{-d.mean:+.4f}",
                f"[{-d.high:+.4f}, {-d.low:+.4f}]",
                "n/a" if gain is None else f"{gain:.2f}",
                float(score["ratios"]["prompt_ratio"].mean()),
                float(score["ratios"]["rollout_ratio"].mean()),
            ]
        )
    columns = [
        "allocator",
        "area",
        "final",
        "area minus uniform",
        "95 %",
        "normalised gain",
        "prompt ratio",
        "rollout ratio",
    ]
    show(f"{scenario}, equal {axis} ({len(uniform['area'])} paired seeds)", columns, rows)


def tuned_uniform(scenario: str, folder: Path | None) -> str:
    """The group size that does best on seeds of its own (equal rollouts)."""
    scores = compare(scenario, list(UNIFORMS), TUNING_SEEDS, folder=folder, first=10_000)
    return max(UNIFORMS, key=lambda n: scores[n]["rollouts"]["area"].mean())


def summarise(scores: Scores, axis: str, ours: str, tuned: str) -> dict[str, Any]:
    """Means and the learned agent's paired, Holm-corrected differences on one axis."""
    rivals = [n for n in scores if n != ours]
    against = {n: better(scores[ours][axis]["area"], scores[n][axis]["area"]) for n in rivals}
    corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
    uniform, oracle = scores["uniform"][axis]["area"], scores["oracle"][axis]["area"]
    return {
        "tuned uniform": tuned,
        "objective": {n: round(1 - float(s[axis]["area"].mean()), 5) for n, s in scores.items()},
        "area": {n: round(float(s[axis]["area"].mean()), 5) for n, s in scores.items()},
        "final": {n: round(float(s[axis]["final"].mean()), 5) for n, s in scores.items()},
        "prompt ratio": {
            n: round(float(s["ratios"]["prompt_ratio"].mean()), 4) for n, s in scores.items()
        },
        "rollout ratio": {
            n: round(float(s["ratios"]["rollout_ratio"].mean()), 4) for n, s in scores.items()
        },
        "normalised gain": {
            n: normalised_gain(s[axis]["area"], uniform, oracle) for n, s in scores.items()
        },
        "learned minus": {
            n: {**as_dict(r), "p_holm": round(corrected[n], 5)} for n, r in against.items()
        },
    }


def judge_control(scores: Scores) -> Figure:
    """Nothing significantly beats the posterior-greedy rule where prompts are alike."""
    base = scores["posterior-greedy"]["rollouts"]["area"]
    against = {
        n: better(s["rollouts"]["area"], base) for n, s in scores.items() if n != "posterior-greedy"
    }
    corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
    # Ties are exact but for rounding in the sixth digit.
    winners = [
        n for n, r in against.items() if corrected[n] < 0.05 and r.high < 0 and r.mean < -2e-6
    ]
    best = min(against, key=lambda n: against[n].mean)
    return Figure(
        "homogeneous: allocators significantly ahead of posterior-greedy",
        len(winners),
        "0",
        not winners,
        "must",
        f"best: {best} {-against[best].mean:+.6f}; {', '.join(winners)}",
    )


def judge(scenario: str, axis: str, scores: Scores, ours: str, tuned: str) -> Figure:
    """The learned agent against the best baseline that is no oracle."""
    plain = [n for n in scores if n != ours and not n.startswith(("oracle", "learned"))]
    best = max(plain, key=lambda n: scores[n][axis]["area"].mean())
    against = {n: better(scores[ours][axis]["area"], scores[n][axis]["area"]) for n in plain}
    corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
    ahead = all(r.verdict == "won" and corrected[n] < 0.05 for n, r in against.items())
    d = against[best]
    return Figure(
        f"{scenario}, equal {axis}: learned minus best baseline (area)",
        round(-d.mean, 5),
        "ahead of every one",
        ahead,
        "aim",
        f"{d.verdict} [{-d.high:+.4f}, {-d.low:+.4f}] against {best}; tuned uniform: {tuned}",
    )


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    folder = options.cells
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    names = options.agents or list(catalogue.RULES)
    for scenario in options.cases or list(SCENARIOS):
        tuned = tuned_uniform(scenario, folder)
        learned = list(dict.fromkeys(shipped_name(scenario, axis) for axis in curves.AXES))
        wanted = [*names, *learned, "oracle"]
        if SCENARIOS[scenario].cost_spread > 1:
            wanted.append("oracle-per-token")
        for extra in ("posterior-greedy", *UNIFORMS):
            if extra not in wanted:
                wanted.append(extra)
        scores = compare(scenario, wanted, options.seeds, folder=folder)
        for axis in curves.AXES:
            ours = shipped_name(scenario, axis)
            show_comparison(scenario, scores, axis)
            results[f"{scenario}, equal {axis}"] = summarise(scores, axis, ours, tuned)
            if scenario in BATTLES:
                figures.append(judge(scenario, axis, scores, ours, tuned))
        if scenario == "homogeneous":
            figures.append(judge_control(scores))
        anti = (
            better(scores["anti"]["rollouts"]["area"], scores["uniform"]["rollouts"]["area"])
            if "anti" in scores
            else None
        )
        if anti is not None and scenario != "homogeneous":
            figures.append(
                Figure(
                    f"{scenario}: anti minus uniform (area)",
                    round(-anti.mean, 5),
                    "behind",
                    anti.verdict == "lost",
                    "aim",
                    f"[{-anti.high:+.4f}, {-anti.low:+.4f}]",
                )
            )
        console.print(f"{scenario}: done after {time.time() - begun:.0f} s")
    return finish("simulator", figures, results, begun, options)
