"""Strategy selection under time-varying memory: one strategy per node, costs on nodes and edges.

The problem of the ASPLOS/EuroSys 2025 contest on intra-operator parallelism (google/iopddl): minimise
the sum of node costs and edge costs such that the usage of the nodes alive stays within a limit at
every time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError

FORBIDDEN = 1e17
"""Edge costs from here on stand for a combination that is not allowed."""


@dataclasses.dataclass(frozen=True)
class StrategyProblem:
    """An instance.

    Attributes:
        name: of the instance.
        costs, usages: per node, an array over its strategies.
        slots: per node, the (compressed) times it is alive at.
        edges: ``(i, j, matrix)``, the matrix ``(strategies of i, strategies of j)``.
        limit: largest usage at any time.
        times: number of compressed times.
    """

    name: str
    costs: tuple[np.ndarray, ...]
    usages: tuple[np.ndarray, ...]
    slots: tuple[slice, ...]
    edges: tuple[tuple[int, int, np.ndarray], ...]
    limit: float
    times: int


def from_json(data: Mapping[str, Any]) -> StrategyProblem:
    """Read an instance of the contest."""
    try:
        body = data.get("problem", data)
        nodes, edges = body["nodes"], body["edges"]
        costs = tuple(np.array(c, float) for c in nodes["costs"])
        usages = tuple(np.array(u, float) for u in nodes["usages"])
        # Usage changes at interval starts only: a time is kept per distinct start.
        marks = np.unique([a for a, b in nodes["intervals"] if b > a])
        slots = tuple(
            slice(int(np.searchsorted(marks, a)), int(np.searchsorted(marks, b)))
            for a, b in nodes["intervals"]
        )
        joined = tuple(
            (int(i), int(j), np.array(c, float).reshape(len(costs[i]), len(costs[j])))
            for (i, j), c in zip(edges["nodes"], edges["costs"], strict=True)
        )
        limit = float(body.get("usage_limit", np.inf))
    except (KeyError, TypeError, ValueError) as error:
        raise AllocgymError(f"strategy problem: not one ({error})") from error
    return StrategyProblem(body.get("name", ""), costs, usages, slots, joined, limit, len(marks))


def loads(problem: StrategyProblem, choice: np.ndarray) -> np.ndarray:
    """``(times,)`` usage of a choice."""
    load = np.zeros(problem.times)
    for u, s, k in zip(problem.usages, problem.slots, choice, strict=True):
        load[s] += u[k]
    return load


def evaluate(problem: StrategyProblem, choice: np.ndarray) -> tuple[float, float]:
    """Return the cost of a choice and its largest usage; feasible where that is within the limit."""
    total = sum(float(c[k]) for c, k in zip(problem.costs, choice, strict=True))
    total += sum(float(m[choice[i], choice[j]]) for i, j, m in problem.edges)
    return total, float(loads(problem, choice).max(initial=0.0))
