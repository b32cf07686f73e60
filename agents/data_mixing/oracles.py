"""Clairvoyant bounds: the best static split and the best schedule under the true law."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from allocgym.agents.data_mixing.heuristics import MixingAgent
from allocgym.envs.core.arrays import columns
from allocgym.envs.data_mixing.problem import DataMixing, objective


def within_limits(shares: torch.Tensor, inst: Any, seen: torch.Tensor) -> torch.Tensor:
    """Differentiable floors and limits: a floor of each share, then caps by what is left.

    Clipping and handing the excess to the others a few times is what the exact projection
    converges to; the environment's own rounding is applied when the split is really spent.
    """
    floor = inst.floor.T / inst.budget
    shares = floor + shares * (1 - floor.sum(0))
    cap = ((inst.limit.T - seen) / inst.budget).clamp(min=0)
    if bool((shares <= cap).all()):
        return shares
    for _ in range(4):
        kept = torch.minimum(shares, cap)
        room = (cap - kept).clamp(min=0) * (kept > 0)
        spare = 1 - kept.sum(0)
        weight = torch.where(room > 1e-9, kept, torch.zeros_like(kept))
        shares = kept + spare * weight / weight.sum(0).clamp(min=1e-9)
    return shares


class ClairvoyantSchedule(MixingAgent):
    """Optimises a split for every period by gradients through the simulator's true law.

    Args:
        problem: `DataMixing`.
        static: one split for all periods instead.
        steps: optimiser steps.
    """

    clairvoyant = True

    def __init__(self, problem: DataMixing, static: bool = False, steps: int = 300) -> None:
        super().__init__(problem)
        self.static = static
        self.steps = steps
        self.name = "oracle-static" if static else "oracle-schedule"

    def peek(self, backend: Any) -> None:
        """Optimise against the law of the running episodes."""

        def convert(array: np.ndarray) -> torch.Tensor:
            wide = array.astype(np.float64) if array.dtype.kind in "fiu" else array
            return torch.as_tensor(np.ascontiguousarray(wide))

        dynamics = backend.dynamics(convert)
        outcome = backend.outcome
        inst = outcome.instance.map(convert)
        horizon = int(outcome.instance.horizon.max())
        start = convert(columns(outcome.heldout))
        present = columns(inst.present)
        first = torch.log(columns(inst.weight) + 0.3 * present / present.sum(0) + 1e-30)
        first = torch.where(present, first, torch.full_like(first, -40.0))
        periods = 1 if self.static else horizon
        logits = first.expand(periods, *first.shape).clone().requires_grad_()
        optimiser = torch.optim.Adam([logits], lr=0.1)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        best = torch.full((first.shape[1],), np.inf, dtype=torch.float64)
        kept = logits.detach().clone()
        for _ in range(self.steps):
            state = dynamics.begin()
            for t in range(horizon):
                shares = torch.softmax(logits[min(t, periods - 1)], 0)
                shares = within_limits(shares, inst, state.seen)
                state, losses = dynamics.step(state, shares * inst.budget, t)
            value, violation = objective(losses, start, inst)
            score = value + inst.penalty * violation
            better = score.detach() < best
            best = torch.where(better, score.detach(), best)
            kept = torch.where(better, logits.detach(), kept)
            optimiser.zero_grad()
            score.sum().backward()
            optimiser.step()
            decay.step()
        self._plan = torch.softmax(kept, 1).numpy()

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        period = int(self.outcome.period[0])
        inst = self.outcome.instance
        floor = inst.floor / inst.budget[:, None]
        plan = columns(self._plan[min(period, len(self._plan) - 1)])
        return floor + plan * (1 - floor.sum(1, keepdims=True))
