"""``--suite simulator``: every agent on every scenario, paired seeds, next to the oracles."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.core.training import train
from allocgym.agents.data_mixing.catalogue import AGENTS
from allocgym.agents.data_mixing.heuristics import Static
from allocgym.benchmarks.core.compare import as_dict, holm, normalised_gain, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, show
from allocgym.envs.core.builder import build, make_problem
from allocgym.envs.data_mixing.problem import objective
from allocgym.simulators.data_mixing.scenario import SCENARIOS

ORACLES = ("oracle-static", "oracle-schedule")
SWEEP = 0.2
CANDIDATES = ("uniform", "natural", "weights", "replay-25%", "replay-50%")


def score(agent: Agent) -> np.ndarray:
    """Final objective with the penalty, ``(batch,)``; lower is better."""
    memory: Any = agent.memory
    return np.asarray(memory.objective + memory.instance.penalty * memory.violation)


def run(name: str | Agent, scenario: str, seeds: int, overrides: dict[str, Any]) -> Agent:
    """Run one agent on seeds 0, 1, ... of a scenario and return it, its memory at the end."""
    backend = build("data-mixing", "twin", scenario, seeds, **overrides)
    agent = catalogue.make(name, backend.problem) if isinstance(name, str) else name
    rollout(agent, backend, np.arange(seeds))
    return agent


def static_sweep(scenario: str, seeds: int, overrides: dict[str, Any]) -> Agent:
    """The best static split found by short runs, paid for out of the same total budget.

    A fifth of the budget goes to one short run per candidate; the one whose *measured* losses
    score best is then run on what is left.
    """
    problem: Any = make_problem("data-mixing")
    small = {**overrides, "budget_fraction": SWEEP / len(CANDIDATES)}
    measured, splits = [], []
    for name in CANDIDATES:
        agent = run(name, scenario, seeds, small)
        memory: Any = agent.memory
        value, excess = objective(np.exp(memory.last.T), np.exp(memory.start.T), memory.instance)
        measured.append(value + memory.instance.penalty * excess)
        splits.append(agent.shares())  # type: ignore[attr-defined]
    best = np.argmin(measured, axis=0)
    chosen = np.stack(splits)[best, np.arange(seeds)]
    rest = {**overrides, "budget_fraction": 1 - SWEEP}
    return run(Static(problem, chosen, "static sweep (pays 20 %)"), scenario, seeds, rest)


def compare_agents(scenario: str, names: list[str], seeds: int) -> dict[str, np.ndarray]:
    """Scores by agent, ``(seeds,)`` each, on the same seeds."""
    return {name: score(run(name, scenario, seeds, {})) for name in names}


def show_comparison(scenario: str, scores: dict[str, np.ndarray]) -> None:
    """Print scores next to uniform, with normalised gains."""
    uniform = scores["uniform"]
    oracle = scores.get("oracle-schedule", uniform)
    rows = []
    for name, values in sorted(scores.items(), key=lambda item: item[1].mean()):
        d = paired(values, uniform)
        gain = normalised_gain(values, uniform, oracle)
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
    columns = ["agent", "objective", "minus uniform", "95 %", "wins/losses", "normalised gain"]
    show(f"{scenario} ({len(uniform)} paired seeds)", columns, rows)


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seeds, quick = options.seeds, options.quick
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    fixed = options.agents or [n for n in AGENTS if n not in ORACLES]
    with tempfile.TemporaryDirectory() as folder:
        for scenario in options.cases or SCENARIOS:
            learned = {}
            plan = {"gradient": 60 if quick else 300}
            if not quick:
                plan |= {"cma": 40, "ppo": 20}
            for trainer, iterations in plan.items():
                path = Path(folder) / f"learned-{trainer}-{scenario}.zip"
                learned[f"learned ({trainer})"] = (
                    path,
                    train("data-mixing", path, scenario, trainer, iterations),
                )
                console.print(
                    f"{scenario}: trained {trainer} in {learned[f'learned ({trainer})'][1]['seconds']} s"
                )
            scores = compare_agents(scenario, [*fixed, *ORACLES], seeds)
            sweep = static_sweep(scenario, seeds, {})
            scores[sweep.name] = score(sweep)
            for label, (path, _) in learned.items():
                scores[label] = score(run(str(path), scenario, seeds, {}))
            show_comparison(scenario, scores)
            results[scenario] = summarise(scores, {k: v[1] for k, v in learned.items()})
            figures += judge(scenario, scores)
    return finish("simulator", figures, results, begun, options)


def summarise(scores: dict[str, np.ndarray], trained: dict[str, Any]) -> dict[str, Any]:
    """Means, paired differences from uniform and from the learned agent, Holm-corrected."""
    ours = scores["learned (gradient)"]
    rivals = {k: v for k, v in scores.items() if k != "learned (gradient)"}
    against = {k: paired(ours, v) for k, v in rivals.items()}
    corrected = dict(zip(against, holm([r.p for r in against.values()]), strict=True))
    gains = {
        k: normalised_gain(v, scores["uniform"], scores["oracle-schedule"])
        for k, v in scores.items()
    }
    return {
        "objective": {k: round(float(v.mean()), 5) for k, v in scores.items()},
        "normalised gain": gains,
        "training": trained,
        "learned (gradient) minus": {
            k: {**as_dict(r), "p_holm": round(corrected[k], 5)} for k, r in against.items()
        },
    }


def judge(scenario: str, scores: dict[str, np.ndarray]) -> list[Figure]:
    """The figures one scenario is judged by."""
    ours = scores["learned (gradient)"]
    static = scores["oracle-static"]
    if scenario == "static-control":
        # Whole units leave the static split off its optimum by this much at most.
        slack = 2e-4
        worst = min(
            (paired(v, static).high + slack, k)
            for k, v in scores.items()
            if k not in ("oracle-static",)
        )
        return [
            Figure(
                "control: best rival minus clairvoyant static, upper end",
                round(worst[0] - slack, 6),
                f">= -{slack:g} (rounding to units)",
                worst[0] >= 0,
                detail=worst[1],
            )
        ]
    plain = {k: v for k, v in scores.items() if not k.startswith(("oracle", "learned"))}
    best = min(plain, key=lambda k: plain[k].mean())
    d = paired(ours, plain[best])
    name = f"{scenario}: learned minus best non-clairvoyant baseline"
    if scenario == "scratch":
        d = paired(ours, scores["static sweep (pays 20 %)"])
        e = paired(ours, static)
        return [
            Figure(
                f"{scenario}: learned minus paid static sweep",
                round(d.mean, 5),
                "level or ahead",
                d.verdict != "lost",
                "aim",
                f"{d.verdict} [{d.low:+.4f}, {d.high:+.4f}]",
            ),
            Figure(
                f"{scenario}: learned minus clairvoyant static",
                round(e.mean, 5),
                "level",
                e.verdict != "lost",
                "aim",
                f"{e.verdict} [{e.low:+.4f}, {e.high:+.4f}]",
            ),
        ]
    return [
        Figure(
            name,
            round(d.mean, 5),
            "ahead",
            d.verdict == "won",
            "aim",
            f"{d.verdict} [{d.low:+.4f}, {d.high:+.4f}] against {best}",
        )
    ]
