"""``--suite simulator``: every scheduler on every scenario, paired seeds, equal total member-steps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.core.training import train
from allocgym.benchmarks.core.compare import Paired, as_dict, holm, normalised_gain, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.envs.core.builder import build, make_problem
from allocgym.simulators.population.scenario import CONTROL, SCENARIOS

POPULATIONS = (
    "pbt-1",
    "pbt",
    "pbt-4",
    "pbt-8",
    "pbt-t-test",
    "copy-only",
    "explore-only",
    "mf-pbt",
    "fire-like",
    "pb2",
    "asha",
    "hyperband",
    "random-search",
    "random",
)
SINGLE = ("wsd", "cosine", "rex", "uba", "power", "linear", "constant")
BOUNDS = ("tuned-wsd", "oracle")
LEARNED = "learned (cma)"
TUNED = "tuned wsd (whole compute)"


def score(
    name: str | Path, scenario: str, seeds: int, overrides: dict[str, Any]
) -> tuple[Agent, np.ndarray]:
    """Run an agent on seeds 0, 1, ... and return it with log test losses, ``(seeds,)``."""
    backend = build("population", "twin", scenario, seeds, **overrides)
    agent = catalogue.make(name, backend.problem)
    rollout(agent, backend, np.arange(seeds))
    return agent, np.log(agent.memory.objective)


def compare_agents(
    scenario: str, names: list[str], seeds: int, overrides: dict[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Log test losses by agent, ``(seeds,)`` each, on the same seeds."""
    scores = {}
    for name in names:
        if name in BOUNDS and SCENARIOS[scenario].asynchronous:
            continue  # they refuse: no single run can have all the steps
        agent, values = score(name, scenario, seeds, overrides or {})
        scores[agent.name] = values
    return scores


def show_comparison(scenario: str, scores: dict[str, np.ndarray], ours: str | None = None) -> None:
    """Print scores next to random search, with normalised gains."""
    base = scores["random-search"]
    bound = scores.get("oracle", base)
    rows = []
    for name, values in sorted(scores.items(), key=lambda item: item[1].mean()):
        d = paired(values, scores[ours] if ours else base)
        gain = normalised_gain(values, base, bound)
        rows.append(
            [
                name,
                float(values.mean()),
                f"{d.mean:+.4f}",
                f"[{d.low:+.4f}, {d.high:+.4f}]",
                f"{d.wins}/{d.losses}",
                "n/a" if gain is None else f"{gain:.2f}",
            ]
        )
    columns = [
        "agent",
        "log test loss",
        f"minus {ours or 'random search'}",
        "95 %",
        "wins/losses",
        "normalised gain",
    ]
    show(f"{scenario} ({len(base)} paired seeds)", columns, rows)


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    names = options.agents or [*POPULATIONS, *SINGLE]
    if "random-search" not in names:
        names = [*names, "random-search"]
    with tempfile.TemporaryDirectory() as folder:
        for scenario in options.cases or SCENARIOS:
            path = Path(folder) / f"learned-{scenario}.zip"
            iterations = 10 if options.quick else 40
            trained = train(
                "population", path, scenario, "cma", iterations, arguments={"batch": 64}
            )
            console.print(f"{scenario}: trained in {trained['seconds']} s")
            scores = compare_agents(scenario, [*names, *BOUNDS], options.seeds)
            scores[LEARNED] = score(path, scenario, options.seeds, {})[1]
            show_comparison(scenario, scores, LEARNED)
            results[scenario] = summarise(scores, trained)
            figures += judge(scenario, scores)
    return finish("simulator", figures, results, begun, options)


def summarise(scores: dict[str, np.ndarray], trained: dict[str, Any]) -> dict[str, Any]:
    """Means and paired differences of the learned agent from the others, Holm-corrected."""
    against = {k: paired(scores[LEARNED], v) for k, v in scores.items() if k != LEARNED}
    corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
    bound = scores.get("oracle", scores["random-search"])
    return {
        "objective": {k: round(float(v.mean()), 5) for k, v in scores.items()},
        "normalised gain": {
            k: normalised_gain(v, scores["random-search"], bound) for k, v in scores.items()
        },
        "training": trained,
        "learned minus": {
            k: {**as_dict(r), "p_holm": round(corrected[k], 5)} for k, r in against.items()
        },
    }


def judge(scenario: str, scores: dict[str, np.ndarray]) -> list[Figure]:
    """The figures one scenario is judged by."""
    figures = []
    single = {catalogue.make(n, make_problem("population")).name for n in (*SINGLE, *BOUNDS)}
    rivals = {k: v for k, v in scores.items() if k not in single and k != LEARNED}
    best = min(rivals, key=lambda k: rivals[k].mean())
    d = paired(scores[LEARNED], rivals[best])
    figures.append(_aim(f"{scenario}: learned minus best population method", d, f"against {best}"))
    if TUNED in scores:
        d = paired(scores[LEARNED], scores[TUNED])
        figures.append(
            _aim(
                f"{scenario}: learned minus tuned WSD with all the compute", d, "WSD's best setting"
            )
        )
    if "oracle" in scores:
        closest = min((k for k in scores if k != "oracle"), key=lambda k: scores[k].mean())
        d = paired(scores[closest], scores["oracle"])
        # The chosen member is the one that measured best: luck in noise moves the last digits.
        slack = 1e-3
        kind = (
            "must" if scenario == CONTROL or SCENARIOS[scenario].family == "multipower" else "aim"
        )
        figures.append(
            Figure(
                f"{scenario}: best rival minus oracle, upper end",
                round(d.high, 5),
                f">= -{slack:g}",
                d.high >= -slack,
                kind,
                closest,
            )
        )
    return figures


def _aim(name: str, d: Paired, detail: str) -> Figure:
    return Figure(
        name,
        round(d.mean, 5),
        "ahead",
        d.verdict == "won",
        "aim",
        f"{d.verdict} [{d.low:+.4f}, {d.high:+.4f}] {detail}",
    )
