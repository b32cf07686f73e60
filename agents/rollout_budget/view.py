"""What a rule sees of the rows it divides rollouts over, from an environment or a foreign loop."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import RolloutMemory


@dataclasses.dataclass
class View:
    """The rows of one round; ``(batch, m)`` arrays unless said otherwise.

    Attributes:
        a, b: Beta belief about the success rate, this update's rollouts included.
        cost: tokens of a rollout relative to the mean row.
        family: family of each row.
        recent_n, recent_k: the published Knapsack RL window (see `beliefs`).
        streak: visits since the last mixed group.
        last_mean: success rate of the last visit.
        mixed: recent share of mixed groups.
        visits: updates the row's item took part in.
        stale: updates since its last visit.
        tried, right: rollouts and successes in this update so far.
        prompts: prompts in the row (0: padding).
        low, high: bounds of this round.
        budget: ``(batch,)`` rollouts of this round.
        multiple: counts are multiples of this.
        group: ``(batch,)`` rollouts of a prompt in an update if all get the same.
        round: number of this round in its update, from 0.
        rounds: rounds in an update.
        step: ``(batch,)`` updates done.
        horizon: ``(batch,)`` updates in all.
        families: number of families.
        family_accuracy: ``(batch, 8)`` held-out accuracy by family.
        accuracy: ``(batch,)`` held-out accuracy.
        seeds: ``(batch,)`` of the rule's own draws.
        ids: item of each row.
    """

    a: np.ndarray
    b: np.ndarray
    cost: np.ndarray
    family: np.ndarray
    recent_n: np.ndarray
    recent_k: np.ndarray
    streak: np.ndarray
    last_mean: np.ndarray
    mixed: np.ndarray
    visits: np.ndarray
    stale: np.ndarray
    tried: np.ndarray
    right: np.ndarray
    prompts: np.ndarray
    low: np.ndarray
    high: np.ndarray
    budget: np.ndarray
    multiple: int
    group: np.ndarray
    round: int
    rounds: int
    step: np.ndarray
    horizon: np.ndarray
    families: int
    family_accuracy: np.ndarray
    accuracy: np.ndarray
    seeds: np.ndarray
    ids: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Posterior mean success rate."""
        return self.a / (self.a + self.b)

    @property
    def sd(self) -> np.ndarray:
        """Posterior standard deviation."""
        p, s = self.mean, self.a + self.b
        return np.asarray(np.sqrt(p * (1 - p) / (s + 1)))

    def uniform(self, purpose: str) -> np.ndarray:
        """``(batch, m)`` draws in (0, 1), keyed by the rule's seed, the item and the update."""
        items = int(self.ids.max()) + 1
        state = randomness.stream(self.seeds, purpose, items)
        state = np.take_along_axis(state, self.ids.T, 0)
        return randomness.uniform(state, self.step * 64 + self.round).T

    def family_mean(self, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Weighted mean of row values by family, ``(batch, families)`` (0 where no weight)."""
        out = np.zeros((len(values), self.families))
        for f in range(self.families):
            mine = weights * (self.family == f)
            whole = mine.sum(1)
            out[:, f] = (values * mine).sum(1) / np.where(whole > 0, whole, 1)
        return out

    def of_family(self, by_family: np.ndarray) -> np.ndarray:
        """Spread ``(batch, families)`` values over the rows."""
        return np.take_along_axis(by_family, self.family, 1)


def view_of(problem: RolloutBudget, memory: RolloutMemory, seed: int) -> View:
    """The view an agent has of an environment's memory."""
    rows: dict[str, Any] = problem.rows(memory)
    inst = memory.instance
    low, high = problem.bounds(memory)
    if low.shape[1] > 16:
        # Rules with per-row state want plain row order.
        rows = {k: np.ascontiguousarray(v) for k, v in rows.items()}
    return View(
        a=rows["a"],
        b=rows["b"],
        cost=rows["cost"],
        family=rows["family"],
        recent_n=rows["recent_n"],
        recent_k=rows["recent_k"],
        streak=rows["streak"],
        last_mean=rows["last_mean"],
        mixed=rows["mixed"],
        visits=rows["visits"],
        stale=memory.step[:, None] - rows["seen"],
        tried=memory.tried,
        right=memory.right,
        prompts=memory.prompts,
        low=low.astype(np.int64),
        high=high.astype(np.int64),
        budget=inst.budget,
        multiple=int(inst.multiple.max()),
        group=inst.group,
        round=int(memory.round.max()),
        rounds=int(inst.rounds.max()),
        step=memory.step,
        horizon=inst.horizon,
        families=int(inst.families.max()),
        family_accuracy=memory.family_accuracy,
        accuracy=memory.accuracy,
        seeds=np.arange(len(memory.step)) + seed * 100_003,
        ids=memory.ids,
    )
