"""Simulated episodes of one agent, long enough to be compared on any axis."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.rollout_budget.agent import RuleAgent
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.scenario import choose
from allocgym.envs.rollout_budget import curves
from allocgym.simulators.rollout_budget.scenario import SCENARIOS, RolloutScenario


def play(
    agent_name: str | Any,
    scenario: str | RolloutScenario,
    seeds: np.ndarray,
    engine: str = "twin",
    **overrides: Any,
) -> dict[str, np.ndarray]:
    """Run an agent on seeds (paired across agents) and return its curves.

    Args:
        agent_name: a name or file of the catalogue, or a `Rule`.
        scenario: name of a scenario, or one made already.
        seeds: one episode each.
        engine: of the simulator.
        overrides: fields of the scenario.
    """
    made = choose(SCENARIOS, scenario, overrides)
    problem: Any = make_problem("rollout-budget", n_max=made.rows, mode="per_prompt")
    agent: Any = (
        catalogue.make(agent_name, problem)
        if isinstance(agent_name, str)
        else RuleAgent(problem, agent_name)
    )
    made = dataclasses.replace(made, **{"rounds": 1, **agent.plays})
    backend = make_backend(problem, engine, made, len(seeds))
    return curves.curves(rollout(agent, backend, seeds))


def scores(
    data: dict[str, np.ndarray], limits: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Area and final accuracy up to the limit of each axis."""
    return {
        axis: {
            "area": curves.area(data[axis], data["accuracy"], limits[axis]),
            "final": curves.at(data[axis], data["accuracy"], limits[axis]),
        }
        for axis in curves.AXES
    }


def limits_of(uniform: dict[str, np.ndarray], horizon: int) -> dict[str, np.ndarray]:
    """Where each axis ends: what uniform has spent after ``horizon`` updates, seed by seed."""
    return {axis: uniform[axis][:, horizon] for axis in curves.AXES}
