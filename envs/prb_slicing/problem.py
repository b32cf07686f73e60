"""Radio slicing as a decision problem: observation, action, reward."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.contracts import Problem, Shares
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.prb_slicing import observation, scores
from allocgym.envs.prb_slicing.observation import BOUND, CONTEXT_FEATURES, ROW_FEATURES
from allocgym.envs.prb_slicing.records import (
    EMBB,
    URLLC,
    SlicingMemory,
    SlicingOutcome,
    SlicingTotals,
    summed,
)
from allocgym.envs.prb_slicing.scenario import SlicingScenario

ACTIONS: tuple[str, ...] = ("shares", "moves", "splits")
OBSERVATIONS: tuple[str, ...] = ("full", "tractor")
REWARDS: tuple[str, ...] = ("sla", "qos", "tractor")
TRACTOR = {"actions": "moves", "observation": "tractor", "reward": "tractor"}
"""What ``tractor_compat`` stands for."""
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
        actions: ``"shares"`` (a box; the default), ``"moves"`` (keep, or one group from one slice to
            another) or ``"splits"`` (every split, by number).
        observation: ``"full"`` (default), or TRACTOR's five numbers (``"tractor"``).
        reward: ``"sla"`` (default), ``"qos"`` or ``"tractor"``.
        move_penalty: points for each group that changes hands.
        kappa: reach of an action of ``"shares"``.
        tractor_compat: TRACTOR's own state, moves and score instead of the three defaults.
        strict: a move that a slice cannot afford raises; otherwise it keeps the split, as in TRACTOR.
    """

    id: ClassVar[str] = "prb-slicing"
    outcome_type = SlicingOutcome
    decision_type = Shares
    higher_is_better: ClassVar[bool] = True
    traces: ClassVar[Mapping[str, str]] = {
        "throughput": "throughput (Mbit/s)",
        "delay": "mean delay (ms)",
    }

    def __init__(
        self,
        n_max: int = 3,
        groups: int = 17,
        actions: str | None = None,
        observation: str | None = None,
        reward: str | None = None,
        move_penalty: float = 0.0,
        kappa: float = budget.KAPPA,
        tractor_compat: bool = False,
        strict: bool = False,
    ) -> None:
        if not 2 <= n_max <= 16:
            raise AllocgymError(f"n_max: 2 to 16 expected, given {n_max}")
        if not 0 < kappa <= 40 or not 0 <= move_penalty <= 1e6:
            raise AllocgymError(
                "kappa within (0, 40] and move_penalty within [0, 1e6] expected, "
                f"given {kappa} and {move_penalty}"
            )
        if not n_max <= groups <= 275:
            raise AllocgymError(f"groups: {n_max} to 275 expected, given {groups}")
        chosen = {}
        for name, value, allowed in (
            ("actions", actions, ACTIONS),
            ("observation", observation, OBSERVATIONS),
            ("reward", reward, REWARDS),
        ):
            usual = TRACTOR[name] if tractor_compat else allowed[0]
            if value is not None and value not in allowed:
                raise unknown(name, value, allowed)
            if tractor_compat and value not in (None, usual):
                raise AllocgymError(f"tractor_compat: it fixes {name}={usual!r}, given {value!r}")
            chosen[name] = value or usual
        self.n_max, self.groups, self.kappa, self.strict = n_max, groups, kappa, strict
        self.actions, self.observation = chosen["actions"], chosen["observation"]
        self.reward_name, self.move_penalty = chosen["reward"], move_penalty
        self.features: tuple[str, ...] = ROW_FEATURES + CONTEXT_FEATURES
        if self.observation == "tractor":
            size = 2 * n_max - 1
            self.features = ("users / 10", "groups / all, but the last slice's")
            self.observation_space: spaces.Space = spaces.Box(0, BOUND, (size,), np.float32)
        else:
            self.observation_space = spaces.Dict(
                claimants=spaces.Box(-BOUND, BOUND, (n_max, len(ROW_FEATURES)), np.float32),
                context=spaces.Box(-BOUND, BOUND, (len(CONTEXT_FEATURES),), np.float32),
                present=spaces.MultiBinary(n_max),
            )
        if self.actions == "shares":
            self.action_space: spaces.Space = spaces.Box(-1.0, 1.0, (n_max,), np.float32)
        elif self.actions == "moves":
            self.action_space = spaces.Discrete(1 + len(all_moves(n_max)))
        else:
            self.action_space = spaces.Discrete(len(all_splits(groups, n_max)))

    def plain(self) -> PRBSlicing:
        """See `Problem.plain`: the full observation and share actions."""
        if self.observation == "full" and self.actions == "shares":
            return self
        return PRBSlicing(self.n_max, self.groups, kappa=self.kappa)

    def check_scenario(self, scenario: SlicingScenario) -> None:
        """Raise `AllocgymError` where the rows or the splits are not those of a scenario."""
        k, groups = len(scenario.slices), scenario.carrier.groups
        if k > self.n_max:
            raise AllocgymError(f"n_max: at least {k}, a row for each slice, given {self.n_max}")
        if self.actions == "splits" and (self.n_max, self.groups) != (k, groups):
            raise AllocgymError(
                f"n_max, groups: {k} slices and {groups} groups to be split, "
                f"given {self.n_max} and {self.groups}"
            )

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
            totals=SlicingTotals(one, one, one, one, one, one),
            instance=outcome.instance,
        )

    @staticmethod
    def _mean_cqi(outcome: SlicingOutcome) -> np.ndarray:
        inst = outcome.instance
        return summed(outcome.cqi * inst.active) / np.maximum(inst.users, 1)

    def update(self, memory: SlicingMemory, outcome: SlicingOutcome) -> SlicingMemory:
        """See `Problem.update`. KPIs that are not ``valid`` leave the memory as it was."""
        inst = outcome.instance
        period = inst.period[:, None]
        arrivals = summed(outcome.work) / period
        requested, granted = summed(outcome.requested), summed(outcome.granted)
        waiting = np.maximum(requested - granted, 0) / period
        first = (memory.period == 0)[:, None]
        average = np.where(first, arrivals, 0.8 * memory.average + 0.2 * arrivals)
        had = outcome.prbs * period
        packets = np.maximum(outcome.packets, 1)
        tractor, qos = scores.tractor_and_qos(outcome)
        sla, before = scores.sla(outcome), memory.totals
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
            sla=sla,
            moved=np.abs(outcome.units - memory.units).sum(1) / 2,
            period=outcome.period,
            totals=SlicingTotals(
                sla=before.sla + sla,
                tractor=before.tractor + tractor,
                qos=before.qos + qos,
                packets=before.packets + scores.pooled(outcome.packets, outcome, URLLC),
                late=before.late + scores.pooled(outcome.late, outcome, URLLC),
                served=before.served + scores.pooled(summed(outcome.served), outcome, EMBB),
            ),
            instance=inst,
        )
        if outcome.valid.all():
            return new
        return new.where(~outcome.valid, memory)

    def encode(self, memory: SlicingMemory) -> Any:
        """See `Problem.encode`."""
        if self.observation == "tractor":
            return observation.encode_tractor(memory)
        return observation.encode(memory)

    def legal(self, memory: SlicingMemory) -> np.ndarray | None:
        """See `Problem.legal`: moves that some slice can afford; splits are all legal."""
        if self.actions != "moves":
            return None
        there, spare = memory.instance.present, memory.units > 1
        giver, taker = np.array(all_moves(self.n_max)).T
        mask = np.ones((len(memory.period), 1 + len(giver)), bool)
        mask[:, 1:] = there[:, giver] & there[:, taker] & spare[:, giver]
        return mask

    def decode(self, action: np.ndarray, memory: SlicingMemory) -> Shares:
        """See `Problem.decode`. A move that is not legal keeps the split, as in TRACTOR."""
        array = self.check_action(action, len(memory.period))
        if self.actions == "shares":
            present = memory.instance.present
            prior = np.ascontiguousarray((present / present.sum(1, keepdims=True)).T)
            tilt = np.ascontiguousarray(array.T)
            return self.round(budget.anchored_shares(tilt, prior, self.kappa).T, memory)
        if self.actions == "splits":
            return Shares(all_splits(self.groups, self.n_max)[array].copy())
        mask = self.legal(memory)
        assert mask is not None
        legal = mask[np.arange(len(array)), array]
        pairs = np.array(((0, 0), *all_moves(self.n_max)))[array]
        if self.strict and not legal.all():
            giver, taker = pairs[np.argmin(legal)]
            raise AllocgymError(
                f"action: slice {giver} has no group to spare for slice {taker}; a legal move "
                "expected (see action_masks())"
            )
        units = memory.units.copy()
        rows = np.flatnonzero((array > 0) & legal)
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

    def scores(self, memory: SlicingMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: means over the periods so far; a late share of all URLLC packets."""
        t = memory.totals
        periods = np.maximum(memory.period, 1)
        seconds = periods * memory.instance.period / 1000
        return {
            "sla (mean per period)": t.sla / periods,
            "tractor": t.tractor / periods,
            "qos": t.qos / periods,
            "URLLC late share": t.late / np.maximum(t.packets, 1),
            "eMBB (Mbit/s)": t.served * 8e-6 / seconds,
        }

    def status(self, decision: Shares, outcome: SlicingOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: groups, throughput and delay of each slice, late packets."""
        rows = zip(names, outcome.units[0], outcome.throughput[0], outcome.delay[0], strict=False)
        parts = [
            f"{name} {int(units)} groups {rate:.2f} Mbit/s {delay:.1f} ms"
            for name, units, rate, delay in rows
        ]
        late = 100 * float(outcome.late[0].sum() / np.maximum(outcome.packets[0].sum(), 1))
        resumed = ["resumed after a gap"] if outcome.failure[0] else []
        return "  ".join([*parts, f"late {late:.1f} %", *resumed])

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
