"""How fast shares may change: the nearest legal split to what was asked for, within a limit.

Floors, limits and whole units can make the limit impossible to hold. Then the smallest change that
is possible is made, and it is said how large it was.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.envs.core.budget import split_units
from allocgym.envs.core.contracts import Problem, Shares
from allocgym.envs.core.errors import AllocgymError

SLACK = 1e-9  # of a unit: rounding in the arithmetic, not of the shares


def check(problem: Problem) -> None:
    """Refuse problems on which a change of shares means nothing.

    Raises:
        AllocgymError: no shares are decided, or the claimants are others in every period.
    """
    if not issubclass(problem.decision_type, Shares) or type(problem).round is Problem.round:
        raise AllocgymError(
            f"max_change: a problem whose decisions are shares expected, given {problem.id!r}; leave "
            f"it out"
        )
    if "ids" in {field.name for field in dataclasses.fields(problem.outcome_type)}:
        raise AllocgymError(
            f"max_change: the same claimants in every period expected, {problem.id!r} has new ones "
            f"each time; leave it out"
        )


def start(problem: Problem, memory: Any) -> np.ndarray:
    """Return the ``(batch, n)`` split that a first decision is held against.

    That is the instance's prior, else what the action of zeros stands for, else the even split.
    """
    prior = getattr(getattr(memory, "instance", None), "prior", None)
    if prior is not None:
        return np.asarray(prior, float)
    try:
        natural = problem.decode(np.zeros((1, *(problem.action_space.shape or ()))), memory)
        split: Any = natural.fractions
    except AllocgymError:
        split = None
    if split is None:
        there = np.asarray(problem.encode(memory)["present"], float)
        split = there / there.sum(1, keepdims=True)
    return np.asarray(split)


def limit(
    problem: Any, decision: Shares, previous: Shares | None, memory: Any, most: float
) -> tuple[Shares, str | None, str]:
    """Hold a decision to a largest change of any share.

    Args:
        problem: decides shares (see `check`).
        decision: legal; of one environment.
        previous: the decision before, None for the first.
        memory: the problem's.
        most: the largest change allowed, in (0, 1].

    Returns:
        The decision to carry out; ``"change limited"``, ``"limit forced"`` or None where nothing was
        changed and the limit holds; and a sentence.
    """
    before = start(problem, memory) if previous is None else previous.fractions
    asked = _change(decision, before)
    budget = int(decision.units.sum())
    if asked <= most + SLACK / budget:
        return decision, None, ""
    target = before + min(1.0, most / asked) * (decision.fractions - before)
    given = _nearest(problem, before, target, memory, (budget, most))
    change = _change(given, before)
    if change <= most + SLACK / budget:
        return given, "change limited", f"change limited to {most:g}: {asked:.4f} was asked for"
    return (
        given,
        "limit forced",
        f"change limited to {change:.4f}, more than the {most:g} allowed: floors, limits and whole "
        f"units leave nothing smaller ({asked:.4f} was asked for)",
    )


def _change(decision: Shares, before: np.ndarray) -> float:
    return float(np.abs(decision.fractions - before).max())


def _nearest(
    problem: Any, before: np.ndarray, target: np.ndarray, memory: Any, limits: tuple[int, float]
) -> Shares:
    """Round the target within the smallest reach, not below the limit, that holds a legal split."""
    budget, most = limits
    least, largest = _reachable(problem, memory)
    here = before[0] * budget

    def bounds(reach: float) -> tuple[np.ndarray, np.ndarray]:
        low = np.ceil(here - reach * budget - SLACK)
        high = np.floor(here + reach * budget + SLACK)
        return np.maximum(low, least), np.minimum(high, largest)

    def holds(reach: float) -> bool:
        low, high = bounds(reach)
        return bool((low <= high).all() and low.sum() <= budget <= high.sum())

    enough = most
    if not holds(most):
        below, enough = most, 1.0
        for _ in range(40):
            middle = (below + enough) / 2
            below, enough = (below, middle) if holds(middle) else (middle, enough)
    low, high = bounds(enough)
    # Columns are environments there, and there is one.
    units = split_units(target.T, np.array([budget]), low[:, None], high[:, None])
    return Shares(np.ascontiguousarray(units.T))


def _reachable(problem: Any, memory: Any) -> tuple[np.ndarray, np.ndarray]:
    """Least and most units of each claimant, ``(n,)`` each, as the problem's own rounding has them."""
    n = problem.n_max
    there = np.asarray(problem.encode(memory)["present"][0], bool)
    least, most = np.zeros(n), np.zeros(n)
    for j in np.flatnonzero(there):
        alone, others = np.zeros((1, n)), there.astype(float)[None]
        alone[0, j] = 1.0
        most[j] = problem.round(alone, memory).units[0, j]
        if there.sum() == 1:
            least[j] = most[j]
            continue
        others[0, j] = 0.0
        least[j] = problem.round(others / others.sum(), memory).units[0, j]
    return least, most
