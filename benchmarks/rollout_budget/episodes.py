"""Simulated episodes of one agent, long enough to be compared on any axis."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.rollout_budget import catalogue
from allocgym.agents.rollout_budget.agent import RuleAgent
from allocgym.benchmarks.rollout_budget import curves
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.simulators.rollout_budget.scenarios import Scenario, make

LONGER = 1.25
"""Episodes run this much longer than the horizon: cheap policies get further at equal cost."""


def stretched(scenario: Scenario, factor: float) -> Scenario:
    """The same dynamics for more updates: the step and the limit stay what they were."""
    return dataclasses.replace(
        scenario,
        horizon=round(scenario.horizon * factor),
        gain=scenario.gain * factor,
        limit=scenario.limit / factor,
    )


def build(name: str, rows: int) -> tuple[Any, Agent]:
    """A per-prompt problem and the agent of that name on it."""
    problem: Any = make_problem("rollout-budget", n_max=rows, mode="per_prompt")
    return problem, catalogue.make(name, problem)


def play(
    agent_name: str | Any,
    scenario: str | Scenario,
    seeds: np.ndarray,
    engine: str = "twin",
    **overrides: Any,
) -> dict[str, np.ndarray]:
    """Run an agent on seeds (paired across agents) and return its curves.

    Args:
        agent_name: a name or file of the catalogue, or a `Rule`.
        scenario: preset or scenario.
        seeds: one episode each.
        engine: of the simulator.
        overrides: fields of the scenario.
    """
    made = make(scenario, **overrides)
    problem: Any = make_problem("rollout-budget", n_max=made.rows, mode="per_prompt")
    agent: Any = (
        catalogue.make(agent_name, problem)
        if isinstance(agent_name, str)
        else RuleAgent(problem, agent_name)
    )
    rule = getattr(agent, "rule", None)
    rounds = 1 if rule is None else rule.rounds
    weight = made.loss_weight if rule is None else rule.loss_weight
    made = dataclasses.replace(made, rounds=rounds, loss_weight=weight)
    backend: Any = make_backend(problem, engine, scenario=made, num_envs=len(seeds))
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
