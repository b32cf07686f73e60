"""Published allocators and selectors, re-implemented from their formulas.

Those that choose prompts rather than counts spend the whole budget on what they choose: every
comparison is at equal rollouts.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget.rules import TINY, Rule, by_gains, pick, proportional
from allocgym.agents.rollout_budget.view import View
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.rollout_budget import algebra

LEAST = 2
ENOUGH = 8


class KnapsackPublished(Rule):
    """Knapsack RL (arXiv 2509.25849) with its published estimator and fall-backs.

    The rate is the mean of the last visit, padded with the visits before it to 16 samples; with
    fewer than 8 the prompt gets the even share. Rates of 0 or 1 get 2; the others 2 plus the
    knapsack's share of value ``[1 - p^n - (1-p)^n] p (1-p)^2``, exact by greedy marginal gains.
    Each such prompt is worth at most ``log(0.1) / log max(p, 1-p)`` rollouts; where these sum to
    less than what is left, the surplus goes evenly to the prompts of rate 0 (else of rate 1).
    """

    name = "knapsack-published"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        known = np.asarray(view.recent_n >= ENOUGH)
        p = np.where(known, view.recent_k / np.maximum(view.recent_n, 1), 0.5)
        there = np.asarray(view.prompts > 0)
        p = np.asarray(p)
        middle = known & (p > 0) & (p < 1) & there
        never, always = known & (p <= 0) & there, known & (p >= 1) & there
        even = np.minimum(np.round(view.group)[:, None] * view.prompts, view.high)
        low = np.where(known, LEAST * view.prompts, even) * there
        low = np.clip(low, view.low, view.high).astype(np.int64)
        short = low.sum(1) > view.budget
        high = np.where(middle, view.high, low)
        with np.errstate(divide="ignore"):
            worth = np.log(0.1) / np.log(np.clip(np.maximum(p, 1 - p), 0.5, 1 - 1e-6))
        worth = np.minimum(np.ceil(worth), view.high) * middle
        left = view.budget - low.sum(1)
        surplus = np.clip(left - worth.sum(1), 0, None)
        # Who takes what the middle cannot use: never solved, else always solved, else everybody.
        taker = np.where(never.any(axis=1, keepdims=True), never, always)
        taker = np.where(taker.any(axis=1, keepdims=True), taker, there)
        extra = taker * (surplus / np.maximum(taker.sum(1), 1))[:, None]
        first = np.minimum(low + np.floor(extra), view.high).astype(np.int64)
        most = int(view.high.max())
        gains = algebra.known_gains(np.clip(p, 1e-6, 1 - 1e-6), most)
        gains = gains * (p * (1 - p) ** 2 * middle)[..., None]
        high = np.maximum(np.where(middle, high, first), first)
        # Rounding, or a batch without a middle: whoever has room takes the rest.
        tight = (high.sum(1) < view.budget) | short
        high = np.where(tight[:, None], view.high, high).astype(np.int64)
        first = np.where(short[:, None], view.low, first)
        c = view.multiple
        if c > 1 or view.prompts.max() > 1 or (view.round > 0):
            return by_gains(view, gains, floor=LEAST)
        return algebra.greedy(gains, view.budget, first, high)


class CurES(Rule):
    """CurES (arXiv 2510.01037): eq. 14 selects, eq. 20 divides.

    Half of the prompts offered are drawn without replacement from
    ``softmax(sqrt(p(1-p)) / tau)`` (Gumbel top-k), then share rollouts by ``sqrt(p(1-p))``.

    Args:
        temperature: tau.
    """

    name = "cures"
    loss_weight = "prompt"

    def __init__(self, temperature: float = 0.1) -> None:
        self.temperature = temperature

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        p = view.mean
        s = np.sqrt(p * (1 - p))
        gumbel = -np.log(-np.log(view.uniform("cures")))
        score = np.where(view.prompts > 0, s / self.temperature + gumbel, -np.inf)
        rank = np.argsort(np.argsort(-score, 1, kind="stable"), 1)
        half = np.ceil((view.prompts > 0).sum(1) / 2)[:, None]
        return proportional(view, view.prompts * s * (rank < half), floor=2)


class DifficultyFilter(Rule):
    """Online Difficulty Filtering (arXiv 2504.03380): only posterior means in [0.2, 0.8]."""

    name = "difficulty-filter"

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        inside = (view.mean >= 0.2) & (view.mean <= 0.8) | (view.visits == 0)
        return proportional(view, view.prompts * (inside + TINY))


class GRESO(Rule):
    """GRESO (arXiv 2506.02177): skip prompts whose last visits were never mixed.

    A prompt with z such visits is skipped with probability ``1 - max(e^z, 0.01)``; ``e`` starts at
    0.5 (easy and hard apart) and moves by 0.01 an update to hold the share of unmixed groups at
    25 %, a third of it easy. What is saved goes evenly to the others.
    """

    name = "greso"

    def begin(self, batch: int) -> None:
        """See `Rule.begin`."""
        self._keep = np.full((batch, 2), 0.5)

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        easy = view.last_mean >= 0.5
        e = np.where(easy, self._keep[:, :1], self._keep[:, 1:])
        chance = np.maximum(e**view.streak, 0.01)
        kept = view.uniform("greso") < chance
        return proportional(view, view.prompts * (kept + TINY))

    def heard(self, view: View, tried: np.ndarray, right: np.ndarray) -> None:
        """See `Rule.heard`."""
        seen = np.maximum((tried > 0).sum(1), 1)
        for column, flat in enumerate((right == tried, right == 0)):
            share = ((tried > 0) & flat).sum(1) / seen
            target = 0.25 * (1 / 3, 2 / 3)[column]
            move = np.where(share > target, -0.01, 0.01)
            self._keep[:, column] = np.clip(self._keep[:, column] + move, 0.05, 0.95)

    def state(self) -> dict[str, Any]:
        """See `Rule.state`."""
        return {"keep": self._keep.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """See `Rule.load`."""
        self._keep = np.array(state["keep"])


class MoPPS(Rule):
    """MoPPS (arXiv 2507.04632): draw p from each belief, take those nearest one half.

    Args:
        group: rollouts of a chosen prompt.
    """

    name = "mopps"

    def __init__(self, group: int = 16) -> None:
        self.group = group

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        from scipy.special import betaincinv

        drawn = betaincinv(view.a, view.b, view.uniform("mopps"))
        return pick(view, (drawn - 0.5) ** 2, self.group)


class GainRL(Rule):
    """GAIN-RL (arXiv 2506.02281): prompts by the angle concentration of their hidden states.

    Prompts are ranked once, most concentrated first. An update trains on those that a Gaussian
    over ranks prefers, and its mean moves on by ``n tanh(alpha (accuracy - beta)) + n tanh(alpha
    angle)``, never back. The published constants (n 500, at most 1,000 a step, width 1,000) are ranks
    of a data set; here they are in proportion to one of `SIZE` prompts. Needs a back end whose model
    can be looked into: the real one.

    Args:
        group: rollouts of a chosen prompt.
        alpha: steepness of both terms.
        beta: accuracy from which the mean moves faster.
    """

    name = "gain-rl"
    SIZE = 7473
    """Prompts of GSM8K's training set, of which the published constants are taken to be a part."""

    def __init__(self, group: int = 16, alpha: float = 2.0, beta: float = 0.5) -> None:
        self.group, self.alpha, self.beta = group, alpha, beta
        self._angles: np.ndarray | None = None
        self._mean = 0.0

    def begin(self, batch: int) -> None:
        """See `Rule.begin`."""
        self._mean = 0.0

    def peek(self, backend: Any) -> None:
        """Read the angles of all prompts, before training."""
        world = getattr(backend, "world", None)
        if world is None:
            raise AllocgymError(
                f"gain-rl: a back end with a model to look into expected (real), "
                f"given {backend.spec.backend}"
            )
        self._angles = world.angles(np.arange(len(world.cell)))
        self._rank = np.argsort(np.argsort(-self._angles, kind="stable"))

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        if self._angles is None:
            raise AllocgymError("gain-rl: the angles of the prompts are not known (see `peek`)")
        unit = len(self._angles) / self.SIZE
        away = (self._rank[view.ids] - self._mean) / (1000 * unit)
        return pick(view, away**2, self.group)

    def heard(self, view: View, tried: np.ndarray, right: np.ndarray) -> None:
        """Move the mean on by what this update's prompts scored and how concentrated they are."""
        assert self._angles is not None
        used = tried[0] > 0
        accuracy = float(right[0].sum() / max(tried[0].sum(), 1))
        angle = float(self._angles[view.ids[0][used]].mean()) if used.any() else 0.0
        step = np.tanh(self.alpha * (accuracy - self.beta)) + np.tanh(self.alpha * angle)
        unit = len(self._angles) / self.SIZE
        self._mean += float(np.clip(500 * step, 0, 1000)) * unit

    def state(self) -> dict[str, Any]:
        """See `Rule.state`."""
        return {"mean": self._mean}

    def load(self, state: dict[str, Any]) -> None:
        """See `Rule.load`."""
        self._mean = float(state["mean"])


class SequentialUntilMixed(Rule):
    """Rounds: half of the even share for all first, then prompts not yet mixed ask again.

    A later round serves the waiting prompts with the fewest tries first, as many each as in the
    first round; what none of them needs is spread evenly.
    """

    name = "sequential"
    rounds = 4

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        if view.round < view.rounds / 2:
            # The even budget of a round is half of its first two: all prompts, evenly.
            return proportional(view, view.prompts.astype(float))
        mixed = (view.right > 0) & (view.right < view.tried)
        waiting = ~mixed & (view.prompts > 0)
        return proportional(view, view.prompts * (waiting + 1e-3))


class ReinforceAda(Rule):
    """Reinforce-Ada's balance (arXiv 2510.04996) at equal rollouts.

    A prompt leaves when it has half of the even share of successes and as many failures; those
    that stay share each round.
    """

    name = "reinforce-ada"
    rounds = 4

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        enough = np.maximum(view.group[:, None] / 4, 1)
        balanced = (view.right >= enough) & (view.tried - view.right >= enough)
        return proportional(view, view.prompts * (~balanced + 1e-6))


class SPEED(Rule):
    """SPEED-RL (arXiv 2506.09016): a screening round for all, then only prompts it found mixed."""

    name = "speed"
    rounds = 4

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        if view.round == 0:
            return proportional(view, view.prompts.astype(float))
        mixed = (view.right > 0) & (view.right < view.tried)
        return proportional(view, view.prompts * (mixed + 1e-6))


class DAPORefill(Rule):
    """DAPO's dynamic sampling (arXiv 2503.14476), charged for what it drops.

    Groups of twice the even share; each round refills with prompts not yet tried (groups without
    signal are dropped by the loss, their rollouts are spent all the same).
    """

    name = "dapo-refill"
    rounds = 4

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        group = int(np.round(2 * view.group.max()))
        fresh = view.tried == 0
        score = np.where(fresh, view.uniform("dapo"), 2.0 + view.tried)
        return pick(view, score, group)


class CategoryRule(Rule):
    """Shares over families, even within one; what is learned is each family's mean |A|."""

    def begin(self, batch: int) -> None:
        """See `Rule.begin`."""
        self._value = np.zeros((batch, 8))
        self._count = np.zeros((batch, 8))

    @abstractmethod
    def shares(self, view: View) -> np.ndarray:
        """``(batch, families)`` shares of the coming round."""

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        share = self.shares(view)
        size = np.stack(
            [(view.prompts * (view.family == f)).sum(1) for f in range(view.families)], 1
        )
        each = share / np.maximum(size, 1)
        return proportional(view, view.prompts * view.of_family(each))

    def heard(self, view: View, tried: np.ndarray, right: np.ndarray) -> None:
        """See `Rule.heard`."""
        rate = right / np.maximum(tried, 1)
        advantage = algebra.mean_abs_advantage(rate)
        mean = view.family_mean(advantage, tried.astype(float))
        spent = np.stack([(tried * (view.family == f)).sum(1) for f in range(view.families)], 1)
        self.learn(mean, spent, view.families)

    @abstractmethod
    def learn(self, mean: np.ndarray, spent: np.ndarray, families: int) -> None:
        """Take in ``(batch, families)`` mean |A| and rollouts."""

    def state(self) -> dict[str, Any]:
        """See `Rule.state`."""
        return {"value": self._value.tolist(), "count": self._count.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """See `Rule.load`."""
        self._value, self._count = np.array(state["value"]), np.array(state["count"])


class SEC(CategoryRule):
    """SEC (arXiv 2505.14970): ``Q <- (1 - alpha) Q + alpha mean|A|``, ``softmax(Q / tau)``.

    Args:
        alpha: step.
        temperature: tau.
    """

    name = "sec"

    def __init__(self, alpha: float = 0.3, temperature: float = 0.2) -> None:
        self.alpha, self.temperature = alpha, temperature

    def shares(self, view: View) -> np.ndarray:
        """See `CategoryRule.shares`."""
        q = self._value[:, : view.families] / self.temperature
        p = np.exp(q - q.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))

    def learn(self, mean: np.ndarray, spent: np.ndarray, families: int) -> None:
        """See `CategoryRule.learn`."""
        old = self._value[:, :families]
        new = (1 - self.alpha) * old + self.alpha * mean
        self._value[:, :families] = np.where(spent > 0, new, old)


class DUMP(CategoryRule):
    """DUMP (arXiv 2504.09710): upper confidence bound over families, softmax of temperature 0.1.

    ``mean|A| + sqrt(2 ln(n + 1) / (n_j + 1))``, with a moving window of about 300 rollouts.
    """

    name = "dump"

    def shares(self, view: View) -> np.ndarray:
        """See `CategoryRule.shares`."""
        k = view.families
        n = self._count[:, :k]
        bound = np.sqrt(2 * np.log(n.sum(1, keepdims=True) + 1) / (n + 1))
        q = (self._value[:, :k] + bound) / 0.1
        p = np.exp(q - q.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))

    def learn(self, mean: np.ndarray, spent: np.ndarray, families: int) -> None:
        """See `CategoryRule.learn`."""
        keep = np.exp(-spent / 300.0)
        old = self._value[:, :families]
        self._value[:, :families] = np.where(spent > 0, keep * old + (1 - keep) * mean, old)
        self._count[:, :families] += spent
