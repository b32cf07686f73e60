"""Search at a fixed cost: rollouts are attempts to solve a prompt, and nothing is learned.

*Best of n*: independent whole attempts and a perfect verifier, ``P(solved) = 1 - (1 - p)^n``.

*Tree*: an attempt has ``depth`` steps, a perfect verifier judges each one, and a wrong step is tried
again from where it was. A step goes right with ``q = p^(1 / depth)``, one unit of budget pays for
``depth`` steps, and ``P(solved) = P(Binomial(n depth, q) >= depth)``. That is the most a verifier of
single steps can be worth, our own algebra, not a model of a published system: ReST-MCTS* (Zhang et al.
2024, arXiv 2406.03816) searches with a learned, imperfect one.
"""

from __future__ import annotations

import numpy as np
from scipy import special


def solved(kind: str, p: np.ndarray, n: np.ndarray, depth: int) -> np.ndarray:
    """Chance that a prompt is solved.

    Args:
        kind: of `scenario.SEARCHES`.
        p: success rate of a whole attempt, in [0, 1].
        n: budget units, any number >= 0 (the formulas are continued between whole ones).
        depth: steps of an attempt.
    """
    p = np.clip(p, 1e-12, 1 - 1e-12)
    if kind == "best-of-n":
        return np.asarray(-np.expm1(n * np.log1p(-p)))
    steps = n * depth
    enough = steps >= depth
    chance = special.betainc(depth, np.where(enough, steps - depth + 1, 1), p ** (1 / depth))
    return np.asarray(np.where(enough, chance, 0.0))


def climb(p: np.ndarray, n: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Play tree searches: whether each is solved, and how many whole attempts would look alike.

    The tries that step k takes are geometric and drawn once, so a search that gets more units later
    goes on where it was.

    Args:
        p: success rate of a whole attempt.
        n: units given so far, in all.
        draws: ``(depth, ...)`` uniform numbers, one a step.

    Returns:
        0 or 1; and ``n q^depth`` with q the share of steps that went right (Haldane's estimate, one
        less of both, where the last step ended the search): successes of whole attempts that would
        say about the same of ``p`` (a power of an estimate: too many where searches are short).
    """
    depth = len(draws)
    q = np.clip(p, 1e-12, 1 - 1e-12) ** (1 / depth)
    tries = np.cumsum(np.ceil(np.log(draws) / np.log1p(-q)).clip(1), 0)
    paid = n * depth
    done = (tries <= paid).sum(0)
    used = np.where(done == depth, tries[-1], paid)
    ended = done == depth
    rate = (done - ended) / np.maximum(used - ended, 1)
    return ended.astype(float), n * rate**depth
