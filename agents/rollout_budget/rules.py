"""Rules for rollout budgets: even, random, adverse, and those that weigh a posterior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget.view import View
from allocgym.envs.rollout_budget import algebra

TINY = 1e-9


class Rule(ABC):
    """Divides the rollouts of a round. Batched; a foreign loop is a batch of one.

    Attributes:
        name: shown in tables.
        rounds: rounds an update must have for the rule to be itself (1: decides once).
        loss_weight: ``"rollout"`` or ``"prompt"``: how its paper's loss weighs groups.
    """

    name: str = "rule"
    rounds: int = 1
    loss_weight: str = "rollout"

    def begin(self, batch: int) -> None:  # noqa: B027
        """Forget everything; ``batch`` episodes start."""

    def peek(self, backend: Any) -> None:  # noqa: B027
        """Look into the back end, for rules that read its model (not its truth)."""

    @abstractmethod
    def units(self, view: View) -> np.ndarray:
        """Return ``(batch, m)`` whole rollouts, rows summing to the round's budget."""

    def heard(self, view: View, tried: np.ndarray, right: np.ndarray) -> None:  # noqa: B027
        """Take in the finished groups of the rows of ``view``, ``(batch, m)`` each."""

    def state(self) -> dict[str, Any]:
        """What must be saved to go on elsewhere, JSON-serialisable."""
        return {}

    def load(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Go on from `state`."""


def proportional(view: View, weights: np.ndarray, floor: int = 0) -> np.ndarray:
    """Split in proportion to weights; each prompt of positive weight gets ``floor`` where possible."""
    low, high, amount, c = view.low, view.high, view.budget, view.multiple
    if floor:
        whole = -(-floor // c) * c
        wanted = np.maximum(low, np.minimum(whole * view.prompts * (weights > 0), high // c * c))
        low = np.where((wanted.sum(1) <= amount)[:, None], wanted, low).astype(np.int64)
    weights = weights * (view.prompts > 0)
    if c > 1:
        low, high, amount = -(-low // c), high // c, amount // c
        return np.asarray(algebra.proportional(weights, amount, low, high) * c)
    return algebra.proportional(weights, amount, low, high)


def by_gains(view: View, gains: np.ndarray, floor: int = 1) -> np.ndarray:
    """Exact allocation by decreasing marginal gains per prompt.

    Args:
        view: the round.
        gains: ``(batch, m, most)`` gain of rollout n + 1 of one prompt of the row.
        floor: each prompt gets this many where the budget allows (the value is concave from 1 on).
    """
    most = int(view.high.max())
    done = np.asarray(view.tried)
    per = np.maximum(view.prompts, 1)
    if view.prompts.max() > 1 or done.any():
        # Rollout j of a row is the (done + j) // prompts th of one of its prompts.
        index = (done[..., None] + np.arange(most)) // per[..., None]
        index = np.minimum(index, gains.shape[-1] - 1).astype(np.int64)
        gains = np.take_along_axis(gains, index, 2)
    wanted = np.clip(floor * view.prompts - done, view.low, view.high).astype(np.int64)
    c = view.multiple
    wanted = -(-wanted // c) * c
    high = view.high // c * c
    wanted = np.minimum(wanted, high)
    fits = wanted.sum(1) <= view.budget
    if not fits.all():
        # Too many rows for a floor: the best ones by their first pair of rollouts get it.
        value = np.where(view.prompts > 0, gains[..., : 2 + floor].sum(-1), -1.0)
        order = np.argsort(np.argsort(-value, 1, kind="stable"), 1)
        kept = np.where(fits, wanted.shape[1], view.budget // max(floor * c, 1) // 2)
        # Enough of them to hold the budget.
        room = np.zeros_like(high)
        np.put_along_axis(room, order, high, 1)
        enough = (np.cumsum(room, 1) < view.budget[:, None]).sum(1) + 1
        chosen = order < np.maximum(kept, enough)[:, None]
        wanted = np.where(chosen, wanted, view.low)
        high = np.where(chosen, high, view.low)
        over = wanted.sum(1) > view.budget
        wanted = np.where(over[:, None], view.low, wanted)
    return algebra.greedy(gains[..., :most], view.budget, wanted, high, c)


class Uniform(Rule):
    """The same for every prompt (``group=None``), or groups of a set size for as many as it takes.

    Args:
        group: rollouts of a prompt; the least visited prompts of the batch get them, the others none.
    """

    name = "uniform"

    def __init__(self, group: int | None = None) -> None:
        self.group = group
        if group is not None:
            self.name = f"uniform-{group}"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        if self.group is None:
            return proportional(view, view.prompts.astype(float))
        return pick(view, view.visits + view.uniform("order"), self.group)


def pick(view: View, score: np.ndarray, group: int) -> np.ndarray:
    """Give ``group`` rollouts a prompt to the rows of lowest score until the budget is spent."""
    size = np.minimum(group * view.prompts, view.high) * (view.prompts > 0)
    order = np.argsort(np.where(size > 0, score, np.inf), 1, kind="stable")
    sorted_size = np.take_along_axis(size, order, 1)
    before = np.cumsum(sorted_size, 1) - sorted_size
    taken = np.clip(view.budget[:, None] - before, 0, sorted_size)
    want = np.zeros_like(size, float)
    np.put_along_axis(want, order, taken.astype(float), 1)
    return proportional(view, want + TINY * (size > 0))


class Random(Rule):
    """Shares drawn anew from the flat simplex at every round."""

    name = "random"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        return proportional(view, -np.log(view.uniform("random")) * view.prompts)


class Anti(Rule):
    """Deliberately bad: most rollouts where the outcome is surest, ``n ~ 1 / (p (1-p))``."""

    name = "anti"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        p = np.clip(view.mean, 0.02, 0.98)
        return proportional(view, view.prompts / (p * (1 - p)), floor=2)


class Deficiency(Rule):
    """Hardest first: ``n ~ 1 - p``."""

    name = "deficiency-first"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        return proportional(view, view.prompts * (1 - view.mean))


class PosteriorGreedy(Rule):
    """Most expected mixed groups under the Beta belief, exactly (closed-form marginal gains).

    Args:
        weighted: multiply each prompt's value by the posterior mean of ``p (1-p)^2`` (Knapsack RL's
            InfoGain with a discounted Beta instead of its published estimator).
    """

    def __init__(self, weighted: bool = False) -> None:
        self.weighted = weighted
        self.name = "knapsack-beta" if weighted else "posterior-greedy"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        a, b = np.asarray(view.a, float), np.asarray(view.b, float)
        most = int(view.high.max())
        if self.weighted:
            p = a / (a + b)
            gains = algebra.known_gains(p, most) * (p * (1 - p) ** 2)[..., None]
        else:
            # Rollouts of this update are in (a, b) already: gains are those of further ones.
            gains = algebra.beta_gains(a - view.right, b - (view.tried - view.right), most)
        return by_gains(view, gains)


class Coverage(Rule):
    """Most prompts solved at least once (search): ``E[p (1 - p)^n]`` for attempt n + 1, exactly.

    Under the Beta belief that expectation is ``B(a + 1, b + n) / B(a, b)``. A prompt that is solved
    gets nothing more.
    """

    name = "coverage"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        a, b = np.asarray(view.a, float)[..., None], np.asarray(view.b, float)[..., None]
        n = np.arange(int(view.high.max()) + int(view.tried.max()))
        factors = (b + n[:-1]) / (a + b + n[:-1] + 1)
        gains = a / (a + b) * np.concatenate([np.ones_like(a), np.cumprod(factors, -1)], -1)
        open_ = (view.prompts > 1) | (view.right <= 0)
        return by_gains(view, gains * (open_ + TINY)[..., None], floor=0)


class Neyman(Rule):
    """VIP for RLOO in closed form, ``n = 1 + (C - M) s_i / sum s`` with ``s = sqrt(p (1-p))``."""

    name = "vip-rloo"
    loss_weight = "prompt"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        p = view.mean
        return proportional(view, view.prompts * np.sqrt(p * (1 - p)), floor=1)


class VIPDrGRPO(Rule):
    """VIP for Dr.GRPO: least summed gradient variance, at least three rollouts a prompt, exact."""

    name = "vip-drgrpo"
    loss_weight = "prompt"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        gains = algebra.dr_grpo_gains(np.asarray(view.mean, float), int(view.high.max()))
        return by_gains(view, np.where(np.isfinite(gains), gains, 1e6), floor=3)


class GVM(Rule):
    """``n ~ G / sqrt(p + alpha / p^(beta-1))``, none where p is 0 (alpha 1e-3, beta 2; G equal)."""

    name = "gvm"
    loss_weight = "prompt"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        p = np.clip(view.mean, 1e-4, 1.0)
        return proportional(view, view.prompts / np.sqrt(p + 1e-3 / p))
