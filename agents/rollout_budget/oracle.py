"""The clairvoyant allocator: it knows every true rate and the law, and looks one update ahead."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.agents.rollout_budget.agent import RuleAgent
from allocgym.agents.rollout_budget.rules import TINY, Coverage, by_gains
from allocgym.agents.rollout_budget.view import View, view_of
from allocgym.envs.core.contracts import Shares
from allocgym.envs.rollout_budget import algebra
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import RolloutOutcome


class Oracle(Agent[RolloutOutcome, Shares]):
    """Greedy ascent on the expected accuracy gained by one update, in small blocks of rollouts.

    Myopic, and greedy on a criterion that is not concave: an upper bound in practice, not a proof.
    Where rollouts are a search, nothing is learned, and it decides as `CoverageOracle` does.

    Args:
        problem: rollout budgets.
        blocks: blocks the budget is handed out in.
        cost_aware: gain per token instead of per rollout.
    """

    name = "oracle"
    clairvoyant = True
    problem: RolloutBudget

    def __init__(self, problem: RolloutBudget, blocks: int = 64, cost_aware: bool = False) -> None:
        super().__init__(problem)
        self.blocks = blocks
        self.cost_aware = cost_aware
        if cost_aware:
            self.name = "oracle-per-token"
        self._backend: Any = None

    def peek(self, backend: Any) -> None:
        """Keep the simulator, to read its true rates and parameters."""
        self._backend = backend

    def ask(self) -> Shares:
        """Hand out the round's rollouts block by block where they gain most."""
        back, memory = self._backend, self.memory
        if back.scenario.search:
            return Shares(covering(back, view_of(self.problem, memory, self.seed)))
        law = back.state.law
        p = np.ascontiguousarray(back.true_rates())
        lengths = np.ascontiguousarray(back.true_lengths())
        group = int(memory.instance.multiple.max())
        low, high = (np.ascontiguousarray(v).astype(np.int64) for v in self.problem.bounds(memory))
        low, high = -(-low // group) * group, high // group * group
        budget = memory.instance.budget
        family = np.ascontiguousarray(
            np.take_along_axis(memory.instance.family, memory.ids, 1)
            if memory.ids.shape[1] != memory.instance.family.shape[1]
            else memory.instance.family
        )
        worth = self._worth(back, law, family)
        batch = len(p)
        units = low.copy()
        prompts = np.maximum(memory.prompts, 1)
        block = max(int(budget.max()) // self.blocks, 1)
        sd = np.sqrt(p * (1 - p))
        v, k = law.noise[:, None], law.between[:, None]
        rows = np.arange(batch)
        left = budget - units.sum(1)
        price = lengths / lengths.mean(1, keepdims=True) if self.cost_aware else np.ones_like(p)
        whole = budget[:, None].astype(float)

        def parts(n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            """Signal, valued signal and squared noise of each row at ``n`` rollouts."""
            w = n / whole
            mixed = algebra.mixed(p, n / prompts) * (n > 0)
            s = w * sd * mixed
            q = w * w * mixed * (v / np.maximum(n, 1) + k * sd * sd / prompts)
            return s, s * worth, q

        def gain(s: np.ndarray, c: np.ndarray, q: np.ndarray) -> np.ndarray:
            return np.asarray(c / np.sqrt(s * s + q + 1e-18))

        s, c, q = parts(units.astype(float))
        total = [x.sum(1, keepdims=True) for x in (s, c, q)]
        while (left > 0).any():
            # At least two rollouts for each prompt of a row: fewer are never mixed.
            step = np.maximum(block, 2 * memory.prompts - units).astype(np.int64)
            step = np.minimum(-(-step // group) * group, left[:, None])
            n = np.minimum(units + step, high)
            new = parts(n.astype(float))
            after = [t + b - a for t, a, b in zip(total, (s, c, q), new, strict=True)]
            value = gain(*after) - gain(*total)
            size = (n - units) / block
            value = np.where((n > units) & (memory.prompts > 0), value, -np.inf)
            value = value / (price * np.where(size > 0, size, 1))
            best = value.argmax(1)
            moved = n[rows, best] - units[rows, best]
            units[rows, best] += moved
            left = left - moved
            total = [x[rows, best][:, None] for x in after]
            for old, fresh in zip((s, c, q), new, strict=True):
                old[rows, best] = fresh[rows, best]
        return Shares(units)

    @staticmethod
    def _worth(back: Any, law: Any, family: np.ndarray) -> np.ndarray:
        """Accuracy gained by a unit of signal of each row: shared part plus the family's own."""
        rates = back.state.rates
        slope = law.weight * rates * (1 - rates) * law.slope
        whole = slope.sum(0)
        by = np.stack([(slope * (law.family == f)).sum(0) for f in range(law.families)], 1)
        own = np.take_along_axis(by, family, 1) * law.own[:, None] * law.families
        return np.asarray((1 - law.own)[:, None] * whole[:, None] + own)


SURE = 1e9
"""Pseudo-rollouts behind what a clairvoyant knows."""


def certain(backend: Any, view: View) -> View:
    """The view with every prompt's true rate in place of beliefs."""
    p = np.ascontiguousarray(backend.true_rates())
    return dataclasses.replace(view, a=p * SURE, b=(1 - p) * SURE)


def covering(backend: Any, view: View) -> np.ndarray:
    """``(batch, m)`` rollouts that solve most prompts, every true rate known."""
    if backend.scenario.search != "tree":
        return np.asarray(Coverage().units(certain(backend, view)), np.int64)
    # A tree's first units may be worth less than its next ones.
    most = (view.high + view.tried) / np.maximum(view.prompts, 1)
    chances = backend.true_chances(int(np.ceil(most.max())))
    open_ = (view.prompts > 1) | (view.right <= 0)
    gains = algebra.concave(np.diff(chances, axis=-1)) * (open_ + TINY)[..., None]
    return np.asarray(by_gains(view, gains, floor=0), np.int64)


class CoverageOracle(RuleAgent):
    """A search with every prompt's true rate known: no split made at once solves more on average.

    (In a tree search up to the rounding of its last units.) Where rollouts train the model it decides as
    if they were best-of-n attempts.
    """

    clairvoyant = True

    def __init__(self, problem: RolloutBudget) -> None:
        super().__init__(problem, Coverage())
        self.name = "oracle-coverage"
        self._backend: Any = None

    def peek(self, backend: Any) -> None:
        """Keep the simulator, to read its true rates."""
        self._backend = backend

    def ask(self) -> Shares:
        """Decide the coming round."""
        self._view = self.view()
        return Shares(covering(self._backend, self._view))
