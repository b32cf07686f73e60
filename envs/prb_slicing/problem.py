"""Radio slicing as a decision problem: observation, action, reward."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.contracts import Problem, Shares
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.prb_slicing import scores
from allocgym.envs.prb_slicing.records import KINDS, SlicingMemory, SlicingOutcome

ROW_FEATURES = (
    "need / carrier",
    "log need share x n",
    "log groups to clear need share x n",
    "arrivals / carrier",
    "average arrivals / carrier",
    "peak arrivals / carrier",
    "waiting / carrier",
    "grant ratio",
    "share used",
    "late share",
    "delay / target",
    "log delay slack",
    "CQI / 15",
    "users / 10",
    "last share x n",
    "mMTC",
    "URLLC",
    "eMBB",
)
CONTEXT_FEATURES = ("need / carrier", "average arrivals / carrier", "n / 8", "log period")
ACTIONS = ("shares", "moves", "splits")
OBSERVATIONS = ("full", "tractor")
REWARDS = ("tractor", "qos", "sla")
BOUND = 10.0
MOST_SPLITS = 50_000


@functools.cache
def all_splits(groups: int, n: int) -> np.ndarray:
    """All ways to divide ``groups`` among ``n`` slices with at least one each, ``(m, n)``.

    120 for 17 groups and 3 slices, in lexicographic order.
    """
    count = math.comb(groups - 1, n - 1)
    if count > MOST_SPLITS:
        raise AllocgymError(
            f"splits: {groups} groups over {n} slices have {count}, at most {MOST_SPLITS} expected"
        )
    cuts = itertools.combinations(range(1, groups), n - 1)
    table = np.array([np.diff([0, *c, groups]) for c in cuts], np.int64)
    table.flags.writeable = False
    return table


@functools.cache
def all_moves(n: int) -> tuple[tuple[int, int], ...]:
    """Giver and taker of each move after 0 ("keep"); for three slices TRACTOR's six."""
    return tuple((i, j) for i in range(n) for j in range(n) if i != j)


class PRBSlicing(Problem[SlicingOutcome, SlicingMemory, Shares]):
    """Divide a carrier's resource block groups among slices; each keeps at least one.

    Args:
        n_max: rows in observation and action (2 to 16).
        groups: resource block groups of the carrier, for ``actions="splits"``.
        actions: ``"shares"`` (a box), ``"moves"`` (keep, or one group from one slice to another)
            or ``"splits"`` (every split, by number).
        observation: ``"full"``, or TRACTOR's five numbers (``"tractor"``).
        reward: ``"tractor"``, ``"qos"`` or ``"sla"``.
        move_penalty: points for each group that changes hands.
        kappa: reach of an action of ``"shares"``.
    """

    id: ClassVar[str] = "prb-slicing"
    outcome_type = SlicingOutcome
    decision_type = Shares
    traces: ClassVar[Mapping[str, str]] = {
        "throughput": "throughput (Mbit/s)",
        "delay": "mean delay (ms)",
    }

    def __init__(
        self,
        n_max: int = 3,
        groups: int = 17,
        actions: str = "shares",
        observation: str = "full",
        reward: str = "sla",
        move_penalty: float = 0.0,
        kappa: float = budget.KAPPA,
    ) -> None:
        if not 2 <= n_max <= 16:
            raise AllocgymError(f"n_max: 2 to 16 expected, given {n_max}")
        for name, value, allowed in (
            ("actions", actions, ACTIONS),
            ("observation", observation, OBSERVATIONS),
            ("reward", reward, REWARDS),
        ):
            if value not in allowed:
                raise unknown(name, value, allowed)
        if not kappa > 0 or move_penalty < 0:
            raise AllocgymError(
                f"kappa > 0 and move_penalty >= 0 expected, given {kappa} and {move_penalty}"
            )
        self.n_max, self.groups, self.kappa = n_max, groups, kappa
        self.actions, self.observation, self.reward_name = actions, observation, reward
        self.move_penalty = move_penalty
        self.features: tuple[str, ...] = ROW_FEATURES + CONTEXT_FEATURES
        if observation == "tractor":
            size = 2 * n_max - 1
            self.features = ("users / 10", "groups / all, but the last slice's")
            self.observation_space: spaces.Space = spaces.Box(0, BOUND, (size,), np.float32)
        else:
            self.observation_space = spaces.Dict(
                claimants=spaces.Box(-BOUND, BOUND, (n_max, len(ROW_FEATURES)), np.float32),
                context=spaces.Box(-BOUND, BOUND, (len(CONTEXT_FEATURES),), np.float32),
                present=spaces.MultiBinary(n_max),
            )
        if actions == "shares":
            self.action_space: spaces.Space = spaces.Box(-1.0, 1.0, (n_max,), np.float32)
        elif actions == "moves":
            self.action_space = spaces.Discrete(1 + len(all_moves(n_max)))
        else:
            self.action_space = spaces.Discrete(len(all_splits(groups, n_max)))

    def begin(self, outcome: SlicingOutcome) -> SlicingMemory:
        """See `Problem.begin`. Before the first period nothing is known but users and channel."""
        row = np.zeros(outcome.units.shape)
        one = np.zeros(len(outcome.period))
        return SlicingMemory(
            units=outcome.units,
            need=row,
            arrivals=row,
            average=row,
            peak=row,
            waiting=row,
            ratio=row + 1,
            used=row,
            late=row,
            delay=row,
            cqi=self._mean_cqi(outcome),
            tractor=one,
            qos=one,
            sla=one,
            moved=one,
            period=outcome.period,
            instance=outcome.instance,
        )

    @staticmethod
    def _mean_cqi(outcome: SlicingOutcome) -> np.ndarray:
        inst = outcome.instance
        return (outcome.cqi * inst.active).sum(2) / np.maximum(inst.users, 1)

    def update(self, memory: SlicingMemory, outcome: SlicingOutcome) -> SlicingMemory:
        """See `Problem.update`. KPIs that are not ``valid`` leave the memory as it was."""
        inst = outcome.instance
        period = inst.period[:, None]
        arrivals = outcome.work.sum(2) / period
        requested, granted = outcome.requested.sum(2), outcome.granted.sum(2)
        waiting = np.maximum(requested - granted, 0) / period
        first = (memory.period == 0)[:, None]
        average = np.where(first, arrivals, 0.8 * memory.average + 0.2 * arrivals)
        had = outcome.prbs * period
        packets = np.maximum(outcome.packets, 1)
        tractor, qos = scores.tractor_and_qos(outcome)
        new = SlicingMemory(
            units=outcome.units,
            need=arrivals + waiting,
            arrivals=arrivals,
            average=average,
            peak=np.maximum(0.9 * memory.peak, arrivals),
            waiting=waiting,
            ratio=np.where(requested > 0, granted / np.maximum(requested, 1e-9), 1.0),
            used=granted / np.maximum(had, 1),
            late=np.minimum(outcome.late / packets, 1),
            delay=outcome.delay,
            cqi=self._mean_cqi(outcome),
            tractor=tractor,
            qos=qos,
            sla=scores.sla(outcome),
            moved=np.abs(outcome.units - memory.units).sum(1) / 2,
            period=outcome.period,
            instance=inst,
        )
        if outcome.valid.all():
            return new
        return new.where(~outcome.valid, memory)

    def encode(self, memory: SlicingMemory) -> Any:
        """See `Problem.encode`."""
        inst = memory.instance
        if self.observation == "tractor":
            budget_ = inst.budget[:, None]
            parts = [inst.users / 10, memory.units[:, :-1] / budget_]
            return np.concatenate(parts, 1).astype(np.float32).clip(0, BOUND)
        carrier = inst.blocks[:, None]
        mask = inst.present
        n = mask.sum(1, keepdims=True)

        def log_share(amount: np.ndarray) -> np.ndarray:
            padded = amount + 0.02 * carrier
            whole = (padded * mask).sum(1, keepdims=True)
            return np.log(padded / whole * n)

        slack = np.log((memory.delay + 1) / (inst.target + 1))
        rows = [
            memory.need / carrier,
            log_share(memory.need),
            log_share(memory.average),
            memory.arrivals / carrier,
            memory.average / carrier,
            memory.peak / carrier,
            memory.waiting / carrier,
            memory.ratio,
            memory.used,
            memory.late,
            np.minimum(memory.delay / inst.target, 4),
            slack,
            memory.cqi / 15,
            inst.users / 10,
            memory.units / inst.budget[:, None] * n,
            *(inst.kind == k for k in range(len(KINDS))),
        ]
        block = np.empty((*mask.shape, len(rows)), np.float32)
        for k, row in enumerate(rows):
            block[:, :, k] = row
        block *= mask[:, :, None]
        context = np.stack(
            [
                (memory.need * mask).sum(1) / inst.blocks,
                (memory.average * mask).sum(1) / inst.blocks,
                n[:, 0] / 8,
                np.log(inst.period / 250),
            ],
            1,
        )
        return {
            "claimants": block.clip(-BOUND, BOUND),
            "context": context.astype(np.float32).clip(-BOUND, BOUND),
            "present": mask.astype(np.int8),
        }

    def action_mask(self, memory: SlicingMemory) -> np.ndarray:
        """``(batch, actions)`` bool: moves that some slice can afford; splits are all legal."""
        if isinstance(self.action_space, spaces.Box):
            raise AllocgymError("action_mask: only discrete actions have one")
        count = int(self.action_space.n)  # type: ignore[attr-defined]
        mask = np.ones((len(memory.period), count), bool)
        if self.actions == "moves":
            for k, (giver, taker) in enumerate(all_moves(self.n_max), start=1):
                there = memory.instance.present[:, giver] & memory.instance.present[:, taker]
                mask[:, k] = there & (memory.units[:, giver] > 1)
        return mask

    def decode(self, action: np.ndarray, memory: SlicingMemory) -> Shares:
        """See `Problem.decode`. An unaffordable move keeps the split, as in TRACTOR."""
        array = self.check_action(action, len(memory.period))
        if self.actions == "shares":
            prior = memory.instance.present / memory.instance.present.sum(1, keepdims=True)
            return self.round(budget.anchored_shares(array.T, prior.T, self.kappa).T, memory)
        top = int(self.action_space.n)  # type: ignore[attr-defined]
        if (array < 0).any() or (array >= top).any():
            raise AllocgymError(f"action: 0 to {top - 1} expected, given {array.tolist()[:8]}")
        if self.actions == "splits":
            return Shares(all_splits(self.groups, self.n_max)[array].copy())
        units = memory.units.copy()
        pairs = np.array(((0, 0), *all_moves(self.n_max)))[array]
        legal = (array > 0) & self.action_mask(memory)[np.arange(len(array)), array]
        rows = np.flatnonzero(legal)
        units[rows, pairs[rows, 0]] -= 1
        units[rows, pairs[rows, 1]] += 1
        return Shares(units)

    def round(self, shares: np.ndarray, memory: SlicingMemory) -> Shares:
        """Turn ``(batch, n)`` shares into whole groups: one for each slice, the rest by share."""
        present = memory.instance.present.astype(np.int64)
        rest = memory.instance.budget - present.sum(1)
        return Shares(present + budget.largest_remainder((shares.T * rest), rest).T)

    def nearest(self, blocks: np.ndarray, memory: SlicingMemory) -> Shares:
        """Whole groups in proportion to wanted blocks, at least one each, ``(batch, n)``."""
        inst = memory.instance
        present = inst.present.astype(np.float64)
        wanted = np.maximum(blocks * present, 1e-9 * present)
        shares = wanted / wanted.sum(1, keepdims=True)
        low = inst.present.astype(np.int64)
        high = low * inst.budget[:, None]
        return Shares(budget.split_units(shares.T, inst.budget, low.T, high.T).T)

    def action_of(self, decision: Shares, memory: SlicingMemory) -> np.ndarray:
        """See `Problem.action_of`.

        Raises:
            AllocgymError: moves cannot express a decision that is more than one group away.
        """
        if self.actions == "shares":
            present = memory.instance.present
            prior = present / present.sum(1, keepdims=True)
            above = (decision.units - present) + 0.0
            rest = np.maximum(above.sum(1, keepdims=True), 1)
            return budget.action_for(above.T / rest.T, prior.T, self.kappa).T.astype(np.float32)
        if self.actions == "splits":
            table = all_splits(self.groups, self.n_max)
            match = (decision.units[:, None] == table).all(2)
            if not match.any(1).all():
                raise AllocgymError("decision: not a split with at least one group for each slice")
            return match.argmax(1)
        change = decision.units - memory.units
        if (np.abs(change).sum(1) > 2).any():
            raise AllocgymError(
                "decision: more than one group moves; actions='moves' cannot say so"
            )
        moves = {pair: k for k, pair in enumerate(all_moves(self.n_max), start=1)}
        return np.array([moves.get((int(r.argmin()), int(r.argmax())), 0) for r in change])

    def cost(self, decision: Shares) -> np.ndarray:
        """See `Problem.cost`."""
        return decision.units.sum(1)

    def reward(self, before: SlicingMemory, after: SlicingMemory) -> dict[str, np.ndarray]:
        """The chosen score of the period, less the price of moves."""
        terms = {self.reward_name: getattr(after, self.reward_name)}
        if self.move_penalty:
            terms["moves"] = -self.move_penalty * after.moved
        return terms

    def check(self, decision: Shares, memory: SlicingMemory) -> None:
        """See `Problem.check`."""
        units, inst = decision.units, memory.instance
        if units.shape != inst.present.shape or not np.issubdtype(units.dtype, np.integer):
            raise AllocgymError(
                f"decision: integers of shape {inst.present.shape} expected, "
                f"given {units.dtype} of shape {units.shape}"
            )
        if (units.sum(1) != inst.budget).any():
            raise AllocgymError(
                f"decision: {inst.budget[0]} groups in all expected, given {units.sum(1)[0]}"
            )
        if (units < inst.present).any() or units[~inst.present].any():
            raise AllocgymError("decision: at least one group for each slice, none for padding")
