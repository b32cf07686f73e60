"""`RolloutAllocator`: any rule inside somebody else's training loop.

Beliefs are kept by dataset index. Frameworks that make a fresh id for a prompt at every step must
pass the index of its row in the data set instead: an id that never returns teaches nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from allocgym.agents.rollout_budget.rules import Rule
from allocgym.agents.rollout_budget.view import View
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.rollout_budget import beliefs
from allocgym.envs.rollout_budget.records import FAMILIES, Beliefs

IntArray = np.ndarray


@dataclasses.dataclass(frozen=True)
class Context:
    """What a training loop can say about the update at hand.

    Attributes:
        step: updates done.
        horizon: updates in all (1 if unknown).
        round: rounds of this update already done.
        rounds: rounds in an update.
        family: ``(m,)`` family of each prompt, integers below 8 (default: all 0).
        accuracy: held-out accuracy (default 0).
        family_accuracy: ``(8,)`` by family (default: ``accuracy`` everywhere).
    """

    step: int = 0
    horizon: int = 1
    round: int = 0
    rounds: int = 1
    family: np.ndarray | None = None
    accuracy: float = 0.0
    family_accuracy: np.ndarray | None = None


class RolloutAllocator(Protocol):
    """What a training loop needs of an allocator."""

    def allocate(self, ids: IntArray, budget: int, ctx: Context | None = None) -> IntArray:
        """Return whole rollouts for each id; they sum to ``budget``, within bounds."""
        ...

    def observe(
        self,
        ids: IntArray,
        n: IntArray,
        successes: IntArray,
        tokens: IntArray | None = None,
        seconds: float | None = None,
        mean_abs_adv: np.ndarray | None = None,
    ) -> None:
        """Take in one round's rollouts."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on elsewhere, JSON-serialisable."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        ...


class RuleAllocator:
    """A `Rule` as a `RolloutAllocator`.

    Args:
        rule: any rule of the catalogue, learned ones included.
        low: least rollouts of an offered prompt in a round.
        high: most rollouts of an offered prompt in an update.
        multiple: every count is a multiple of this.
        retention: of beliefs from visit to visit (0.7 to 0.8 for large models at small rates).
        prior: pseudo-successes and pseudo-failures before any rollout.
        pooled: the prior of a prompt follows the running mean of its family (`Context.family`), so
            that prompts not seen before are judged by their like.
        warm_up: updates with even counts before the rule decides.
        seed: of the rule's own draws.

    Attributes:
        unmeasured: counts told so far that were NaN or infinite.
    """

    def __init__(
        self,
        rule: Rule,
        low: int = 0,
        high: int = 128,
        multiple: int = 1,
        retention: float = 0.8,
        prior: tuple[float, float] = (0.5, 0.75),
        pooled: bool = True,
        warm_up: int = 0,
        seed: int = 0,
    ) -> None:
        if low < 0 or high < 1 or low > high or multiple < 1:
            raise AllocgymError(
                f"low, high, multiple: 0 <= low <= high and multiple >= 1 expected, given {low}, "
                f"{high}, {multiple}"
            )
        if not 0 <= retention <= 1 or min(prior) <= 0:
            raise AllocgymError(
                f"retention, prior: 0 to 1 and positive numbers expected, given {retention}, {prior}"
            )
        self.rule, self.low, self.high, self.multiple = rule, low, high, multiple
        self.retention, self.prior, self.warm_up, self.seed = retention, prior, warm_up, seed
        self.rule.begin(1)
        self._beliefs = self._fresh(0)
        self.pooled = pooled
        self._pools = np.zeros((2, FAMILIES))
        self._updates = 0
        self.unmeasured = 0
        self._pending: dict[str, np.ndarray] | None = None
        self._view: View | None = None

    def _fresh(self, items: int) -> Beliefs:
        a, b = self.prior
        return beliefs.fresh(np.full((1, items), float(a)), np.full((1, items), float(b)))

    def _grow(self, largest: int) -> None:
        have = self._beliefs.a.shape[1]
        if largest < have:
            return
        more = self._fresh(max(largest + 1, 2 * have) - have)
        self._beliefs = Beliefs(
            **{
                f.name: np.concatenate([getattr(self._beliefs, f.name), getattr(more, f.name)], 1)
                for f in dataclasses.fields(Beliefs)
            }
        )

    def allocate(self, ids: IntArray, budget: int, ctx: Context | None = None) -> IntArray:
        """See `RolloutAllocator.allocate`.

        Raises:
            AllocgymError: repeated or negative ids, or a budget that the bounds cannot hold.
        """
        ids = self._ids(ids)
        m = len(ids)
        if budget % self.multiple:
            raise AllocgymError(f"budget: a multiple of {self.multiple} expected, given {budget}")
        ctx = ctx or Context(step=self._updates)
        tried, right = np.zeros((1, m)), np.zeros((1, m))
        if ctx.round and self._pending is not None and np.array_equal(self._pending["ids"], ids):
            tried, right = self._pending["tried"][None], self._pending["right"][None]
        high = np.maximum(self.high - tried, 0)
        if self.low * m > budget or high.sum() < budget:
            raise AllocgymError(
                f"budget: {budget} rollouts over {m} prompts cannot lie between {self.low} and "
                f"{self.high} each"
            )
        view = self._make_view(ids, budget, ctx, tried, right, high)
        self._view = view
        rule = self.rule
        if self._updates < self.warm_up:
            from allocgym.agents.rollout_budget.rules import Uniform

            rule = Uniform()
        return np.asarray(rule.units(view)[0], np.int64)

    def _make_view(
        self,
        ids: IntArray,
        budget: int,
        ctx: Context,
        tried: np.ndarray,
        right: np.ndarray,
        high: np.ndarray,
    ) -> View:
        m = len(ids)
        rows = {f.name: getattr(self._beliefs, f.name)[:, ids] for f in dataclasses.fields(Beliefs)}
        known = rows["length"] > 0
        mean = rows["length"][known].mean() if known.any() else 1.0
        family = np.zeros(m, np.int64) if ctx.family is None else np.asarray(ctx.family, np.int64)
        if family.shape != (m,) or family.min(initial=0) < 0 or family.max(initial=0) >= FAMILIES:
            raise AllocgymError(f"family: {m} integers below {FAMILIES} expected, given {family}")
        by_family = (
            np.full(FAMILIES, ctx.accuracy)
            if ctx.family_accuracy is None
            else np.asarray(ctx.family_accuracy, float)
        )
        if self.pooled:
            a0, b0 = self.prior
            mean = beliefs.category_mean(self._pools[0], self._pools[1], a0 / (a0 + b0))[family]
            rows["a"] = rows["a"] - a0 + (a0 + b0) * mean
            rows["b"] = rows["b"] - b0 + (a0 + b0) * (1 - mean)
        return View(
            a=rows["a"] + right,
            b=rows["b"] + tried - right,
            cost=np.where(known, rows["length"] / mean, 1.0),
            family=family[None],
            recent_n=rows["recent_n"],
            recent_k=rows["recent_k"],
            streak=rows["streak"],
            last_mean=rows["mean"],
            mixed=rows["mixed"],
            visits=rows["visits"],
            stale=ctx.step - rows["seen"],
            tried=tried,
            right=right,
            prompts=np.ones((1, m)),
            low=np.full((1, m), min(self.low, int(high.min())), np.int64),
            high=high.astype(np.int64),
            budget=np.array([budget]),
            multiple=self.multiple,
            group=np.array([budget * ctx.rounds / m]),
            round=ctx.round,
            rounds=ctx.rounds,
            step=np.array([ctx.step]),
            horizon=np.array([max(ctx.horizon, 1)]),
            families=int(family.max(initial=0)) + 1,
            family_accuracy=by_family[None],
            accuracy=np.array([ctx.accuracy]),
            seeds=np.array([self.seed]),
            ids=ids[None],
        )

    def _ids(self, ids: IntArray) -> IntArray:
        ids = np.asarray(ids)
        if ids.ndim != 1 or not len(ids) or not np.issubdtype(ids.dtype, np.integer):
            raise AllocgymError(f"ids: a list of integers expected, given {ids!r}")
        if ids.min() < 0 or len(np.unique(ids)) != len(ids):
            raise AllocgymError("ids: distinct dataset indices >= 0 expected")
        self._grow(int(ids.max()))
        return ids

    def observe(
        self,
        ids: IntArray,
        n: IntArray,
        successes: IntArray,
        tokens: IntArray | None = None,
        seconds: float | None = None,
        mean_abs_adv: np.ndarray | None = None,
        final: bool = True,
    ) -> None:
        """See `RolloutAllocator.observe`.

        A prompt whose count is NaN or infinite (a reward that could not be computed) was not measured:
        what is believed of it stays as it was, and it is counted in `unmeasured`.

        Args:
            ids: dataset indices, as given to `allocate`.
            n: rollouts of each.
            successes: successes among them.
            tokens: generated tokens of each (optional; rules that weigh cost need it).
            seconds: of the round (kept for the record only).
            mean_abs_adv: mean |A| by prompt (not needed for 0/1 rewards: it follows from counts).
            final: the update's last round (False between rounds of one update).

        Raises:
            AllocgymError: counts of the wrong length, negative, or more successes than rollouts.
        """
        ids = self._ids(ids)
        tried, right = np.asarray(n, float), np.asarray(successes, float)
        if tried.shape != ids.shape or right.shape != ids.shape:
            raise AllocgymError(f"n, successes: {len(ids)} counts each expected")
        length = np.zeros(len(ids)) if tokens is None else np.asarray(tokens, float)
        if length.shape != ids.shape:
            raise AllocgymError(f"tokens: {len(ids)} counts expected, given {length.shape}")
        known = np.isfinite(tried) & np.isfinite(right)
        tried, right = np.where(known, tried, 0.0), np.where(known, right, 0.0)
        length = np.where(known & np.isfinite(length), length, 0.0)
        if (right < 0).any() or (right > tried).any():
            raise AllocgymError("successes: between 0 and n expected")
        self.unmeasured += int((~known).sum())
        waiting = self._pending
        if waiting is not None and np.array_equal(waiting["ids"], ids):
            tried, right = tried + waiting["tried"], right + waiting["right"]
            length = length + waiting["tokens"]
            known = known | waiting["known"]
        if not final:
            counts = {"tried": tried, "right": right, "tokens": length}
            self._pending = {"ids": ids, "known": known, **counts}
            return
        self._pending = None
        self._updates += 1
        mixed = ((right > 0) & (right < tried)).astype(float)
        a, b = self.prior
        items = self._beliefs.a.shape
        self._beliefs = beliefs.update(
            self._beliefs,
            ids[None, known],
            tried[None, known],
            right[None, known],
            mixed[None, known],
            (length / np.maximum(tried, 1))[None, known],
            np.array([self._updates]),
            np.full(items, float(a)),
            np.full(items, float(b)),
            np.array([self.retention]),
        )
        if self._view is not None and np.array_equal(self._view.ids[0], ids):
            where = self._view.family
            self._pools = np.concatenate(
                [
                    beliefs.pool(self._pools[:1], where, right[None]),
                    beliefs.pool(self._pools[1:], where, (tried - right)[None]),
                ]
            )
            self.rule.heard(self._view, tried[None], right[None])

    def state_dict(self) -> dict[str, Any]:
        """See `RolloutAllocator.state_dict`."""
        return {
            "rule": self.rule.name,
            "updates": self._updates,
            "beliefs": self._beliefs.to_json(),
            "pools": self._pools.tolist(),
            "state": self.rule.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `RolloutAllocator.load_state_dict`.

        Raises:
            AllocgymError: the state of another rule.
        """
        if state.get("rule") != self.rule.name:
            raise AllocgymError(
                f"state: of rule {state.get('rule')!r}, this allocator runs {self.rule.name!r}"
            )
        self._updates = int(state["updates"])
        self._beliefs = Beliefs.from_json(state["beliefs"])
        self._pools = np.array(state["pools"])
        if state["state"]:
            self.rule.load(state["state"])
        self._pending = None
