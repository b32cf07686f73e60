"""Learned priorities: a small portfolio of scoring rules, trained by CMA-ES, best one kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.memory_mapping import order as orders
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, missing_extra
from allocgym.envs.memory_mapping.placer import Placer
from allocgym.envs.memory_mapping.problem import MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program

KIND = "priority-portfolio"


class Priorities:
    """Orders tensors by learned scores.

    Args:
        weights: ``(members, features)``; each member is one rule over `orders.features`.
    """

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = np.atleast_2d(np.asarray(weights, float))
        if self.weights.shape[1] != len(orders.FEATURES):
            raise AllocgymError(
                f"weights: {len(orders.FEATURES)} a member expected, given {self.weights.shape[1]}"
            )

    def orders(self, program: Program, device: Device) -> list[np.ndarray]:
        """One order of the tensors per member."""
        ids = orders.candidates(program)
        table = orders.features(program, device)[ids]
        return [ids[np.argsort(-(table @ w), kind="stable")] for w in self.weights]

    def order(self, program: Program, device: Device) -> np.ndarray:
        """The order of the member whose plan the exact evaluator prefers."""
        placer = Placer(program, device)
        found = self.orders(program, device)
        return max(found, key=placer.order)

    def save(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write an agent file."""
        import torch

        agent_file.save(
            path,
            MemoryMapping(),
            KIND,
            {"features": list(orders.FEATURES)},
            {"weights": torch.tensor(self.weights)},
            provenance,
        )

    @classmethod
    def load(cls, path: Path) -> Priorities:
        """Read an agent file."""
        description, weights = agent_file.load(path, MemoryMapping())
        if description["kind"] != KIND or weights is None or "weights" not in weights:
            raise CorruptFileError(f"{path}: holds {description['kind']!r}, not priorities")
        if description["settings"].get("features") != list(orders.FEATURES):
            raise AllocgymError(f"{path}: trained on other features; retrain it")
        return cls(weights["weights"].numpy())


def train(
    pairs: Sequence[tuple[Program, Device]],
    members: int = 4,
    iterations: int = 40,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[Priorities, dict[str, Any]]:
    """Train a portfolio, one member after the other.

    Member k maximises the mean over programs of the best of members 1 to k (fraction of the all-slow
    time saved, less what XLA's rule saves). CMA-ES (Hansen 2016, arXiv 1604.00772), on a fresh third
    of the programs each generation, the same for the whole population.

    Args:
        pairs: programs and machines to train on.
        members: rules in the portfolio.
        iterations: generations per member.
        seed: of everything.
        progress: called with the generation and the best mean gain in it.

    Returns:
        The portfolio and its provenance.
    """
    try:
        import cma
    except ImportError as error:
        raise missing_extra("cma", "learn") from error
    begun = time.process_time()
    rng = np.random.default_rng(seed)
    placers = [Placer(p, d) for p, d in pairs]
    tables, ids = [], []
    for p, d in pairs:
        ids.append(orders.candidates(p))
        tables.append(orders.features(p, d)[ids[-1]])
    floor = np.array([x.order(orders.xla(p, d)) for x, (p, d) in zip(placers, pairs, strict=True)])
    best = np.full(len(pairs), -np.inf)

    def play(w: np.ndarray, which: np.ndarray) -> np.ndarray:
        return np.array(
            [
                placers[i].order(ids[i][np.argsort(-(tables[i] @ w), kind="stable")]) - floor[i]
                for i in which
            ]
        )

    found: list[np.ndarray] = []
    everything = np.arange(len(pairs))
    for member in range(members):
        start = (
            rng.normal(0, 0.5, len(orders.FEATURES)) if member else np.zeros(len(orders.FEATURES))
        )
        search = cma.CMAEvolutionStrategy(
            start, 0.5, {"seed": seed + member + 1, "verbose": -9, "popsize": 12}
        )
        for generation in range(iterations):
            which = rng.choice(everything, max(len(pairs) // 3, 1), replace=False)
            asked = search.ask()
            scores = [
                float(np.maximum(play(np.array(w), which), best[which]).mean()) for w in asked
            ]
            search.tell(asked, [-s for s in scores])
            if progress is not None:
                progress(member * iterations + generation + 1, max(scores))
        tried = [search.result.xfavorite, *search.ask(4)]
        gains = [np.maximum(play(np.array(w), everything), best) for w in tried]
        chosen = int(np.argmax([g.mean() for g in gains]))
        best = gains[chosen]
        found.append(np.array(tried[chosen]) / np.abs(tried[chosen]).max())
    provenance = {
        "trainer": "cma",
        "members": members,
        "iterations": iterations,
        "seed": seed,
        "programs": sorted({p.name for p, _ in pairs}),
        "gain_over_xla": float(best.mean()),
        "seconds": round(time.process_time() - begun, 1),
    }
    return Priorities(np.array(found)), provenance
