"""SCOPE's schedulers and their kin: one TTI's blocks among the users of a slice."""

from __future__ import annotations

import math


def round_robin(needs: list[float], blocks: float, turn: int) -> list[float]:
    """SCOPE's policy 0: one user first, which takes what it needs, then the next."""
    grants = [0.0] * len(needs)
    for k in range(len(needs)):
        j = (turn + k) % len(needs)
        grants[j] = min(needs[j], blocks)
        blocks -= grants[j]
    return grants


def water(needs: list[float], blocks: float) -> list[float]:
    """SCOPE's policy 1: equal rounds until everybody has enough or nothing is left (max-min)."""
    grants = [0.0] * len(needs)
    left = len(needs)
    for j in sorted(range(left), key=needs.__getitem__):
        grants[j] = min(needs[j], blocks / left)
        blocks -= grants[j]
        left -= 1
    return grants


def whole_water(needs: list[float], blocks: float, turn: int) -> list[float]:
    """The same in whole blocks; who gets the odd ones takes turns."""
    grants = [float(math.floor(g)) for g in water(needs, blocks)]
    rest = int(blocks - sum(grants))
    for k in range(len(needs)):
        j = (turn + k) % len(needs)
        if rest and grants[j] < needs[j]:
            grants[j] += 1
            rest -= 1
    return grants


def softmax(needs: list[float], blocks: float) -> list[float]:
    """SCOPE's policy 2: floor of the softmax of requests, the rest to who lacks most."""
    top = max(needs)
    weights = [math.exp(min(n, 110) - min(top, 110)) if n else 0.0 for n in needs]
    whole = sum(weights) or 1.0
    grants = [min(n, w / whole * blocks) for n, w in zip(needs, weights, strict=True)]
    rest = blocks - sum(grants)
    order = sorted(range(len(needs)), key=lambda j: grants[j] - needs[j])
    for j in order:
        more = min(rest, needs[j] - grants[j])
        grants[j] += more
        rest -= more
    return grants


def proportional_fair(needs: list[float], blocks: float, metric: list[float]) -> list[float]:
    """In the order of rate over average rate, each user takes what it needs."""
    grants = [0.0] * len(needs)
    for j in sorted(range(len(needs)), key=lambda k: -metric[k]):
        grants[j] = min(needs[j], blocks)
        blocks -= grants[j]
    return grants
