"""Learned priorities: a small portfolio of scoring rules, tuned by CMA-ES, best one kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.evolution import tune
from allocgym.agents.core.portfolio import Portfolio, ranked
from allocgym.agents.memory_mapping import order as orders
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.program import Device, Program


class Priorities(Portfolio):
    """Orders tensors by learned scores over `order.features`."""

    kind = "priority-portfolio"
    label = "features"
    columns = orders.FEATURES

    def orders(self, program: Program, device: Device) -> list[np.ndarray]:
        """One order of the tensors per member."""
        ids = orders.candidates(program)
        return [ids[o] for o in self.ranked(orders.features(program, device)[ids])]

    def order(self, program: Program, device: Device) -> np.ndarray:
        """The order of the member whose plan the exact evaluator prefers."""
        return orders.best_of(Game(program, device), self.orders(program, device)).order


def train(
    pairs: Sequence[tuple[Program, Device]],
    members: int = 4,
    iterations: int = 40,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[Priorities, dict[str, Any]]:
    """Train a portfolio, one member after the other.

    Member k maximises the mean over programs of the best of members 1 to k (fraction of the all-slow
    time saved, less what XLA's rule saves), on a third of the programs each generation, the same for
    all its candidates.

    Args:
        pairs: programs and machines to train on.
        members: rules in the portfolio.
        iterations: generations per member.
        seed: of everything.
        progress: called with (generations so far, best mean gain of the generation).
        checkpoint: where it goes on from, and keeps what it knows.

    Returns:
        The portfolio and what should be recorded of the training.
    """
    begun = time.perf_counter()
    rng = np.random.default_rng(seed)
    games = [Game(p, d) for p, d in pairs]
    ids = [orders.candidates(p) for p, _ in pairs]
    tables = [orders.features(p, d)[i] for (p, d), i in zip(pairs, ids, strict=True)]
    floor = [g.order(orders.xla(p, d)) for g, (p, d) in zip(games, pairs, strict=True)]
    best = np.full(len(pairs), -np.inf)
    third = max(len(pairs) // 3, 1)

    def gains(weights: Sequence[float], which: np.ndarray) -> np.ndarray:
        own = [games[i].order(ids[i][ranked(tables[i], weights)]) - floor[i] for i in which]
        return np.maximum(own, best[which])

    def cost(weights: list[float], seeds: np.ndarray) -> float:
        some = np.random.default_rng(int(seeds[0])).choice(len(pairs), third, replace=False)
        return -float(gains(weights, some).mean())

    price = (checkpoint or Checkpoint()).replayed(cost)
    found: list[np.ndarray] = []
    information: dict[str, Any] = {}
    for member in range(members):
        start = (
            rng.normal(0, 0.5, len(orders.FEATURES)) if member else np.zeros(len(orders.FEATURES))
        )

        def told(done: int, score: float, before: int = member * iterations) -> None:
            if progress is not None:
                progress(before + done, score)

        weights, information = tune(
            price, third, start.tolist(), 0.5, iterations, seed * members + member, 12, told
        )
        best = gains(weights, np.arange(len(pairs)))
        found.append(np.array(weights) / max(np.abs(weights).max(), 1e-12))
    information |= {
        "members": members,
        "episodes": members * information["episodes"],
        "seed": seed,
        "programs": sorted({p.name for p, _ in pairs}),
        "gain_over_xla": float(best.mean()),
        "seconds": round(time.perf_counter() - begun, 1),
    }
    return Priorities(np.array(found)), information
