"""Our own recorded GRPO runs: read back, fitted on some, predicted on others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget.agent import make_rule
from allocgym.benchmarks.core.suite import console
from allocgym.benchmarks.rollout_budget import episodes
from allocgym.envs.core.journal import write_json
from allocgym.envs.rollout_budget import curves
from allocgym.simulators.rollout_budget import calibration
from allocgym.simulators.rollout_budget.recorded import Run
from allocgym.simulators.rollout_budget.scenario import SCENARIOS

REGIMES = ("easy", "hard-tail", "mixed-cost")


def read(regime: str, cells: Path) -> list[dict[str, Any]]:
    """Finished real cells of a regime: ``{"cell": ..., "result": ...}``."""
    found = []
    for file in sorted(cells.glob("*.json")):
        data = json.loads(file.read_text())
        if data["cell"].get("regime") == regime and "trajectory" in data["result"]:
            found.append(data)
    return found


def as_run(data: dict[str, Any]) -> Run:
    """A finished cell as a recorded run."""
    from allocgym.real_backend.rollout_budget import tasks

    cell, result = data["cell"], data["result"]
    names = tasks.regime_cells(cell["regime"])
    ids = np.array([t[0] for t in result["trajectory"]])
    each = cell["setting"].get("each", 200)
    by_cell = np.array(result["cells"])
    families = tuple(tasks.FAMILY_NAMES.index(c.family) for c in names)
    # The start is the same for every run of a regime: filled in by `compare`.
    return Run(
        policy=cell["agent"],
        seed=cell["seed"],
        ids=ids,
        tried=np.array([t[1] for t in result["trajectory"]]),
        right=np.array([t[2] for t in result["trajectory"]]),
        logged=np.array(result["steps"][1:]),
        accuracy=np.array(result["accuracy"][1:]),
        cells=by_cell,
        by_prompt=cell["setting"].get("loss_weight") == "prompt",
        families=families,
        cell=ids // each,
    )


def area_of(data: dict[str, Any], axis: str = "rollouts", limit: float | None = None) -> float:
    """Area under the measured accuracy of a finished cell."""
    r = data["result"]
    x, y = np.array(r[axis])[None], np.array(r["accuracy"])[None]
    return float(curves.area(x, y, np.array([limit or r[axis][-1]]))[0])


def simulate(
    name: str,
    fit: dict[str, Any],
    rule: str,
    count: int,
    weight: str = "rollout",
    rows: int = 64,
    high: int = 256,
) -> float:
    """Mean area of a rule in free-running simulation of the set-up a fit was made on."""
    steps = int(fit["steps"])
    reach = fit["eta"] * steps
    made = dataclasses.replace(
        SCENARIOS["tiny"],
        cells=name,
        rows=rows,
        epoch=66,
        budget=512,
        horizon=steps,
        high=high,
        gain=reach,
        limit=fit["limit"] / reach,
        own=fit["own"],
        noise=fit["noise"],
        between=fit["between"],
        families=max(fit["families"]) + 1,
        gain_spread=0.0,
        loss_weight=weight,
    )
    agent = make_rule(rule)
    agent.loss_weight = weight
    data = episodes.play(agent, made, np.arange(count))
    ends = data["rollouts"][:, -1]
    return float(curves.area(data["rollouts"], data["accuracy"], ends).mean())


def compare(
    regime: str, cells: Path, count: int
) -> tuple[dict[str, np.ndarray], dict[str, float]] | None:
    """Real and simulated areas of a regime's policies; None without enough runs.

    The law is fitted to the uniform runs but the last seed's and to one ``anti`` run; every other
    run and policy is predicted.
    """
    found = read(regime, cells)
    real: dict[str, dict[int, float]] = {}
    for data in found:
        real.setdefault(data["cell"]["agent"], {})[data["cell"]["seed"]] = area_of(data)
    # Policies with one run say nothing of a difference.
    real = {name: v for name, v in real.items() if len(v) > 1}
    seeds = sorted(set.intersection(*(set(v) for v in real.values()))) if real else []
    whole = [d for d in found if len(d["result"].get("cells", [])) == len(d["result"]["steps"]) - 1]
    uniform = [d for d in whole if d["cell"]["agent"] == "uniform"]
    anti = [d for d in whole if d["cell"]["agent"] == "anti"]
    if len(seeds) < 2 or not uniform or not anti:
        return None
    chosen = [as_run(d) for d in [*uniform[: max(len(uniform) - 1, 1)], anti[0]]]
    fit = calibration.fit_runs(chosen, [], f"own GRPO runs, regime {regime}")
    path = cells.parent / f"fit-{regime}.json"
    write_json(path, fit)
    simulated = {}
    for name in real:
        rule = name
        simulated[name] = simulate(str(path), fit, rule, count, high=128)
    console.print(f"{regime}: law fitted to {', '.join(fit['calibration runs'])}")
    return {k: np.array([v[s] for s in seeds]) for k, v in real.items()}, simulated
