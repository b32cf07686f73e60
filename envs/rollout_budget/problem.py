"""Rollout budgets as a decision problem: observation, action, reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.arrays import columns, total
from allocgym.envs.core.contracts import Problem, Shares
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.rollout_budget import beliefs, observation
from allocgym.envs.rollout_budget.observation import BOUND, CONTEXT_FEATURES, ROW_FEATURES
from allocgym.envs.rollout_budget.records import CATEGORIES, RolloutMemory, RolloutOutcome

MODES = ("bins", "index", "per_prompt")
EXPONENT = 3.0
"""Reach of an exponent of the index action."""


class RolloutBudget(Problem[RolloutOutcome, RolloutMemory, Shares]):
    """Divide the rollouts of each policy update over prompts, or bins of prompts.

    Args:
        n_max: rows offered in a period, 2 to 4096.
        mode: ``"bins"`` and ``"per_prompt"``: one number a row (share proportional to the row's
            prompts times ``exp(kappa a)``); ``"index"``: five numbers for any number of rows.
        kappa: reach of the action per row, 0.001 to 20.
        temperature: of the index action, 0.001 to 1000.
    """

    id: ClassVar[str] = "rollout-budget"
    outcome_type = RolloutOutcome
    decision_type = Shares
    traces: ClassVar[dict[str, str]] = {
        "accuracy": "held-out accuracy, as measured",
        "prompt_ratio": "share of prompts with mixed groups",
    }
    features = ROW_FEATURES + CONTEXT_FEATURES
    higher_is_better = True

    def __init__(
        self,
        n_max: int = 10,
        mode: str = "bins",
        kappa: float = budget.KAPPA,
        temperature: float = 1.0,
    ) -> None:
        if not 2 <= n_max <= 4096:
            raise AllocgymError(f"n_max: 2 to 4096 expected, given {n_max}")
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        if not (1e-3 <= kappa <= 20 and 1e-3 <= temperature <= 1000):
            raise AllocgymError(
                f"kappa, temperature: 0.001 to 20 and 0.001 to 1000 expected, given {kappa}, "
                f"{temperature}"
            )
        self.n_max, self.mode, self.kappa, self.temperature = n_max, mode, kappa, temperature
        self.observation_space = spaces.Dict(
            {
                "claimants": spaces.Box(-BOUND, BOUND, (n_max, len(ROW_FEATURES)), np.float32),
                "context": spaces.Box(-BOUND, BOUND, (len(CONTEXT_FEATURES),), np.float32),
                "present": spaces.MultiBinary(n_max),
            }
        )
        size = 5 if mode == "index" else n_max
        self.action_space = spaces.Box(-1.0, 1.0, (size,), np.float32)

    def begin(self, outcome: RolloutOutcome) -> RolloutMemory:
        """See `Problem.begin`."""
        inst = outcome.instance
        batch = len(outcome.step)
        none = np.zeros((batch, CATEGORIES))
        return self._remember(
            outcome,
            beliefs=beliefs.fresh(inst.prior_a, inst.prior_b),
            slope=np.zeros(batch),
            spent=np.zeros_like(outcome.spent),
            pool_a=none,
            pool_b=none,
            paid=np.stack([outcome.all_rollouts, outcome.all_tokens, outcome.all_seconds], 1),
            areas=np.zeros((batch, 3)),
            ratios=np.zeros((batch, 2)),
        )

    def update(self, memory: RolloutMemory, outcome: RolloutOutcome) -> RolloutMemory:
        """Take in a round; beliefs move when the update it belongs to is complete."""
        inst = outcome.instance
        ended = outcome.round == 0
        known = memory.beliefs
        slope, paid, areas, ratios = memory.slope, memory.paid, memory.areas, memory.ratios
        pools = (memory.pool_a, memory.pool_b)
        if ended.any():
            size = outcome.tried + (outcome.tried == 0)
            tried, share = outcome.tried, outcome.mixed / np.maximum(outcome.prompts, 1)
            if not ended.all():
                tried = tried * ended[:, None]
            known = beliefs.update(
                known,
                self._ids(outcome.last_ids, inst.family),
                tried,
                outcome.right * (tried > 0),
                share,
                outcome.tokens / size,
                outcome.step,
                inst.prior_a,
                inst.prior_b,
                inst.retention,
            )
            if inst.pooled.any():
                ids = outcome.last_ids
                where = np.take_along_axis(inst.category, ids, 1)
                right = outcome.right * ended[:, None]
                fresh = (
                    beliefs.pool(pools[0], where, right),
                    beliefs.pool(pools[1], where, tried - right),
                )
                pools = tuple(  # type: ignore[assignment]
                    np.where(ended[:, None], new, old)
                    for new, old in zip(fresh, pools, strict=True)
                )
            slope = slope + beliefs.FADE * (outcome.accuracy - memory.accuracy - slope) * ended
            now = np.stack([outcome.all_rollouts, outcome.all_tokens, outcome.all_seconds], 1)
            mean = (memory.heldout + outcome.heldout) * 0.5 * ended
            areas = areas + (now - paid) * mean[:, None]
            paid = np.where(ended[:, None], now, paid)
            both = np.stack([outcome.prompt_ratio, outcome.rollout_ratio], 1)
            ratios = ratios + both * ended[:, None]
        return self._remember(
            outcome,
            beliefs=known,
            slope=slope,
            spent=memory.spent + outcome.spent,
            pool_a=pools[0],
            pool_b=pools[1],
            paid=paid,
            areas=areas,
            ratios=ratios,
        )

    @staticmethod
    def _ids(ids: np.ndarray, items: np.ndarray) -> np.ndarray | None:
        """None where every item is offered, in order: no gather is needed."""
        return None if ids.shape[1] == items.shape[1] else ids

    @staticmethod
    def _remember(outcome: RolloutOutcome, **kept: Any) -> RolloutMemory:
        """What is remembered: of the outcome, and what was ``kept`` of earlier ones."""
        tried, right = outcome.tried, outcome.right
        within = outcome.round > 0
        if not within.all():
            mask = columns(np.broadcast_to(within, (tried.shape[1], len(within))))
            tried, right = tried * mask, right * mask
        return RolloutMemory(
            ids=outcome.ids,
            prompts=outcome.prompts,
            tried=tried,
            right=right,
            step=outcome.step,
            round=outcome.round,
            accuracy=outcome.accuracy,
            heldout=outcome.heldout,
            family_accuracy=outcome.family_accuracy,
            prompt_ratio=outcome.prompt_ratio,
            rollout_ratio=outcome.rollout_ratio,
            tokens=outcome.all_tokens,
            seconds=outcome.all_seconds,
            objective=1.0 - outcome.heldout,
            instance=outcome.instance,
            **kept,
        )

    def rows(self, memory: RolloutMemory) -> dict[str, np.ndarray]:
        """What is believed of the rows offered now, ``(batch, n)`` each.

        Keys ``a``, ``b`` (with the rollouts of this update so far), ``mean``, ``sd``, ``cost``
        (tokens of a rollout relative to the mean row), ``family``, and the other fields of
        `Beliefs`.
        """
        inst = memory.instance
        ids = self._ids(memory.ids, inst.family)
        out = {
            name: beliefs.take(getattr(memory.beliefs, name), ids)
            for name in (
                "a",
                "b",
                "recent_n",
                "recent_k",
                "streak",
                "mixed",
                "length",
                "visits",
                "seen",
            )
        }
        out["last_mean"] = beliefs.take(memory.beliefs.mean, ids)
        out["family"] = beliefs.take(inst.family, ids)
        if inst.pooled.any():
            # Evidence of one's own on a prior that follows the category's running mean.
            a0, b0 = (beliefs.take(prior, ids) for prior in (inst.prior_a, inst.prior_b))
            start = (inst.prior_a.sum(1) / (inst.prior_a + inst.prior_b).sum(1))[:, None]
            mean = beliefs.category_mean(memory.pool_a, memory.pool_b, start)
            mean = np.take_along_axis(mean, beliefs.take(inst.category, ids), 1)
            on = inst.pooled[:, None] > 0
            out["a"] = np.where(on, out["a"] - a0 + (a0 + b0) * mean, out["a"])
            out["b"] = np.where(on, out["b"] - b0 + (a0 + b0) * (1 - mean), out["b"])
        if memory.round.any():
            out["a"] = out["a"] + memory.right
            out["b"] = out["b"] + (memory.tried - memory.right)
        strength = out["a"] + out["b"]
        out["mean"] = out["a"] / strength
        out["variance"] = out["mean"] * (1 - out["mean"])
        out["sd"] = np.sqrt(out["variance"] / (strength + 1))
        known = out["length"] > 0
        length = columns(out["length"])
        if known.all():
            out["cost"] = columns(length / (total(length) / len(length)))
        else:
            count = columns(known).sum(0)
            mean = total(length) / (count + (count == 0))
            scaled = out["length"] / (mean + (mean == 0)).astype(length.dtype)[:, None]
            out["cost"] = np.where(known, scaled, scaled.dtype.type(1))
        return out

    def encode(self, memory: RolloutMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        return observation.encode(memory, self.rows(memory))

    def decode(self, action: np.ndarray, memory: RolloutMemory) -> Shares:
        """Turn an action into whole rollouts within bounds; the period's total is exact."""
        array = self.check_action(action, len(memory.step))
        if array.dtype != np.float32:
            array = array.astype(np.float64, copy=False)
        if self.mode == "index":
            return self.round(self.index_weights(np.asarray(array, float), memory), memory)
        prompts = columns(memory.prompts)
        prior = prompts / np.maximum(prompts.sum(0), 1)
        # A copy in the layout of everything else: rows first, environments in long rows.
        tilt = np.ascontiguousarray(columns(array))
        return self.round(columns(budget.anchored_shares(tilt, prior, self.kappa)), memory)

    def index_weights(self, action: np.ndarray, memory: RolloutMemory) -> np.ndarray:
        """Weights of the five-number action: ``(p^a (1-p)^b u^c / cost^d)^(1/T)`` over a floor.

        Args:
            action: ``(batch, 5)`` in [-1, 1]: exponents a, b, c, d as fractions of `EXPONENT`, and
                the floor: the share (0 to 1) that is spread evenly.
            memory: of the episodes.

        Returns:
            ``(batch, n)`` shares.
        """
        rows = self.rows(memory)
        a, b, c, d = (EXPONENT / self.temperature * action[:, i, None] for i in range(4))
        p = np.clip(rows["mean"], 1e-3, 1 - 1e-3)
        log = a * np.log(p) + b * np.log1p(-p) + c * np.log(np.maximum(rows["sd"], 1e-3))
        log = log - d * np.log(np.maximum(rows["cost"], 1e-3))
        prompts = memory.prompts
        log = np.where(prompts > 0, log, -np.inf)
        w = prompts * np.exp(log - log.max(1, keepdims=True))
        floor = (action[:, 4, None] + 1) / 2
        even = prompts / np.maximum(prompts.sum(1, keepdims=True), 1)
        shares: np.ndarray = (1 - floor) * w / w.sum(1, keepdims=True) + floor * even
        return shares

    def bounds(self, memory: RolloutMemory) -> tuple[np.ndarray, np.ndarray]:
        """Least and most rollouts of each row in the coming period, ``(batch, n)`` each.

        ``high`` binds over a whole update: what a row got in earlier rounds counts.
        """
        inst = memory.instance
        low = memory.prompts * inst.low[:, None]
        high = memory.prompts * inst.high[:, None] - memory.tried
        return np.minimum(low, high), high

    def round(self, shares: np.ndarray, memory: RolloutMemory) -> Shares:
        """Turn ``(batch, n)`` shares into whole rollouts within this period's bounds."""
        inst = memory.instance
        low, high = self.bounds(memory)
        amount, c = inst.budget, int(inst.multiple.max())
        wanted = shares * amount[:, None]
        if c == 1 and (wanted <= high - 1).all() and (wanted >= low).all():
            # No bound binds, nor can rounding up reach one.
            return Shares(columns(budget.largest_remainder(columns(wanted), amount)))
        if c > 1:
            # Room is whole groups: low rounded up, high down, the total is a multiple by contract.
            low, high, amount = -(-low // c), high // c, amount // c
        units = budget.split_units(columns(shares), amount, columns(low), columns(high))
        return Shares(columns(units * c))

    def action_of(self, decision: Shares, memory: RolloutMemory) -> np.ndarray:
        """See `Problem.action_of`; the index action has no inverse."""
        if self.mode == "index":
            raise AllocgymError(
                "mode: 'index' actions cannot express every split; use another mode"
            )
        prompts = columns(memory.prompts)
        prior = prompts / np.maximum(prompts.sum(0), 1)
        units = columns(decision.units)
        action = budget.action_for(units / np.maximum(units.sum(0), 1), prior, self.kappa)
        return columns(action).astype(np.float32)

    def cost(self, decision: Shares) -> np.ndarray:
        """See `Problem.cost`."""
        return total(columns(decision.units))

    def reward(self, before: RolloutMemory, after: RolloutMemory) -> dict[str, np.ndarray]:
        """Rise of held-out accuracy, less the priced tokens. Never a gradient ratio."""
        inst = after.instance
        return {
            "accuracy": after.heldout - before.heldout,
            "cost": -inst.price * (after.tokens - before.tokens) / inst.nominal,
        }

    def check(self, decision: Shares, memory: RolloutMemory) -> None:
        """See `Problem.check`."""
        inst = memory.instance
        units = np.asarray(decision.units)
        if units.shape != memory.ids.shape or not np.issubdtype(units.dtype, np.integer):
            raise AllocgymError(
                f"units: integers of shape {memory.ids.shape} expected, "
                f"given {units.dtype} of shape {units.shape}"
            )
        if (units.sum(1) != inst.budget).any():
            raise AllocgymError(
                f"units: each row must sum to the period's budget {inst.budget.tolist()}, "
                f"given sums {units.sum(1).tolist()}"
            )
        low, high = self.bounds(memory)
        if (units < low).any() or (units > high).any() or (units % inst.multiple[:, None]).any():
            raise AllocgymError(
                f"units: multiples of {inst.multiple.tolist()} between {low.min()} and "
                f"{high.max()} a row expected, given {units.min()} to {units.max()}"
            )

    def scores(self, memory: RolloutMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: held-out accuracy now, its mean over what was spent (rollouts, tokens,
        seconds), what was spent, and both gradient ratios, means over updates.

        Where rollouts are a search, accuracy is the share of prompts solved.
        """  # noqa: D205
        area = memory.areas / (memory.paid + (memory.paid == 0))
        area = np.where(memory.paid > 0, area, memory.heldout[:, None])
        ratios = memory.ratios / np.maximum(memory.step, 1)[:, None]
        return {
            "held-out accuracy": memory.heldout,
            "mean over rollouts": area[:, 0],
            "mean over tokens": area[:, 1],
            "mean over seconds": area[:, 2],
            "tokens": memory.tokens,
            "seconds": memory.seconds,
            "ratio per prompt": ratios[:, 0],
            "ratio per rollout": ratios[:, 1],
        }

    def plain(self) -> RolloutBudget:
        """See `Problem.plain`: agent files decide for rows, which an index action does not."""
        if self.mode != "index":
            return self
        return RolloutBudget(self.n_max, "per_prompt", self.kappa, self.temperature)

    def status(self, decision: Shares, outcome: RolloutOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: the spread of rollouts, accuracy and both gradient ratios."""
        units = decision.units[0]
        return (
            f"rollouts {units.min()} to {units.max()} a row  accuracy {outcome.heldout[0]:.3f}  "
            f"ratios {outcome.prompt_ratio[0]:.2f} / {outcome.rollout_ratio[0]:.2f}"
        )
