"""Bounds that look at the simulator: the best static split, and clairvoyant one-step greedy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.agents.prb_slicing.heuristics import SlicingAgent
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing import scores
from allocgym.envs.prb_slicing.problem import PRBSlicing, all_splits

FIELDS = ("prbs", "served", "dropped", "backlog", "granted", "requested", "packets", "late")
"""What scores read of a slice."""


class ClairvoyantGreedy(SlicingAgent):
    """Plays every split of the coming period in the simulator and takes the best.

    Hard masks make slices independent, so each slice is played once for every size it may have
    and the splits are put together from those. What waits at the end breaks ties: a split that
    scores the same and leaves less is better.

    Args:
        problem: radio slicing.
        score: ``"sla"``, ``"tractor"`` or ``"qos"``.
        look: weight of what waits at the end of the period (in carriers).
    """

    clairvoyant = True

    def __init__(self, problem: PRBSlicing, score: str = "sla", look: float = 0.02) -> None:
        super().__init__(problem)
        self.score, self.look = score, look
        self.name = "clairvoyant greedy"

    def peek(self, backend: Any) -> None:
        """Keep the simulator.

        Raises:
            AllocgymError: it cannot play a period without leaving a trace, or lends blocks.
        """
        if "oracle" not in backend.spec.capabilities or not hasattr(backend, "preview"):
            raise AllocgymError(f"{self.name}: the twin is needed, given {backend.spec.backend!r}")
        self._backend = backend

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return self.ask().units.astype(float)

    def ask(self) -> Shares:
        """The best of all splits under the coming period's traffic and channel."""
        outcome = self.outcome
        inst = outcome.instance
        groups, n = int(inst.budget[0]), int(inst.present[0].sum())
        most = groups - n + 1
        plays = [self._backend.preview(g) for g in range(1, most + 1)]
        stacked = {name: np.stack([getattr(p, name) for p in plays]) for name in FIELDS}
        table = all_splits(groups, n)
        slices = np.arange(n)
        best = np.full(len(outcome.period), -np.inf)
        choice = np.zeros(len(best), np.int64)
        for k, units in enumerate(table):
            changed = {}
            for name in FIELDS:
                value = getattr(plays[0], name).copy()
                value[:, :n] = np.moveaxis(stacked[name][units - 1, :, slices], 0, 1)
                changed[name] = value
            joined = dataclasses.replace(plays[0], **changed)
            if self.score == "sla":
                value = scores.sla(joined)
            else:
                value = scores.tractor_and_qos(joined)[self.score == "qos"]
            waits = (joined.requested - joined.granted).sum((1, 2)) / (inst.blocks * inst.period)
            value = value - self.look * waits
            better = value > best + 1e-12
            best = np.where(better, value, best)
            choice = np.where(better, k, choice)
        units = np.zeros_like(outcome.units)
        units[:, :n] = table[choice]
        return Shares(units)
