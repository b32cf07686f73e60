"""One real GRPO run as a cell: a JSON description in, a JSON result out."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.rollout_budget.catalogue import AGENTS
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.rollout_budget import curves

HORIZON = 60
ROWS = 64


def content(agent: str) -> dict[str, str]:
    """What names the content of an agent's file in a cell: nothing where it has none."""
    file = agent
    if agent.startswith("learned:"):
        file = AGENTS[agent][1]["path"]  # type: ignore[index]
    if not file.endswith(".zip"):
        return {}
    return {"sha": hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]}


def describe(regime: str, agent: str, seed: int, rounds: int = 1, **setting: Any) -> dict[str, Any]:
    """Describe a run; an agent file enters by its content."""
    return {
        "v": 1,
        "regime": regime,
        "agent": agent,
        "seed": seed,
        "rounds": rounds,
        "setting": {"horizon": HORIZON, "evaluate_every": 6, **setting},
        **content(agent),
    }


def run(cell: dict[str, Any]) -> dict[str, Any]:
    """Train one model with one allocator; return its curve and, by update, what was tried."""
    problem: Any = make_problem("rollout-budget", n_max=ROWS, mode="per_prompt")
    by_cell: list[list[float]] = []

    def note(update: int, accuracy: float) -> None:
        if update % cell["setting"]["evaluate_every"] == 0:
            by_cell.append([round(float(v), 4) for v in backend.cell_accuracy])

    backend: Any = make_backend(
        problem,
        "real",
        scenario=cell["regime"],
        rounds=cell["rounds"],
        device="cpu",
        progress=note,
        **cell["setting"],
    )
    agent = catalogue.make(cell["agent"], problem)
    begun = time.process_time()
    outcomes = rollout(agent, backend, np.array([cell["seed"]]), seed=cell["seed"])
    used = time.process_time() - begun
    kept = curves.updates(outcomes)
    data = curves.curves(outcomes)
    every = cell["setting"]["evaluate_every"]
    measured = [i for i in range(len(kept)) if i % every == 0 or i == len(kept) - 1]
    return {
        "accuracy": [round(float(data["accuracy"][0, i]), 5) for i in measured],
        **{axis: [round(float(data[axis][0, i]), 2) for i in measured] for axis in curves.AXES},
        "steps": measured,
        "cells": by_cell,
        "family": [[round(float(v), 4) for v in kept[i].family_accuracy[0]] for i in measured],
        "prompt_ratio": round(float(data["prompt_ratio"][0, 1:].mean()), 5),
        "rollout_ratio": round(float(data["rollout_ratio"][0, 1:].mean()), 5),
        "trajectory": [
            [
                o.last_ids[0].tolist(),
                o.tried[0].astype(int).tolist(),
                o.right[0].astype(int).tolist(),
            ]
            for o in kept[1:]
        ],
        "cpu_seconds": round(used, 1),
    }
