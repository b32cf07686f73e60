"""Rules for radio slicing: fixed splits, proportional rules, controllers."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.problem import PRBSlicing, all_moves, all_splits
from allocgym.envs.prb_slicing.records import EMBB, MMTC, URLLC, SlicingMemory, SlicingOutcome


class SlicingAgent(Agent[SlicingOutcome, Shares]):
    """A rule that names how many blocks each slice should have, up to a factor."""

    problem: PRBSlicing

    @property
    def memory(self) -> SlicingMemory:
        """The problem's memory of this episode."""
        found: SlicingMemory = super().memory
        return found

    @abstractmethod
    def blocks(self) -> np.ndarray:
        """``(batch, n)`` blocks wanted; only their proportions count."""

    def ask(self) -> Shares:
        """Round to whole groups, at least one each."""
        return self.problem.nearest(self.blocks(), self.memory)


class Equal(SlicingAgent):
    """The same for every slice."""

    name = "equal"

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return self.outcome.instance.present.astype(float)


class Static(SlicingAgent):
    """A fixed split.

    Args:
        problem: radio slicing.
        units: groups, ``(n,)`` or ``(batch, n)``, or as text (``"1-4-12"``).
        name: shown in tables (default: ``static-`` and the split).
    """

    def __init__(
        self, problem: PRBSlicing, units: np.ndarray | str = "1-4-12", name: str = ""
    ) -> None:
        super().__init__(problem)
        if isinstance(units, str):
            parts = units.split("-")
            if not all(p.isascii() and p.isdigit() and len(p) < 6 for p in parts):
                raise AllocgymError(
                    f"agent: static-3-5-9 or the like expected, given static-{units}"
                )
            units = np.array([int(p) for p in parts])
        self.units = np.atleast_2d(np.asarray(units, np.int64))
        self.name = name or f"static-{'-'.join(map(str, self.units[0]))}"

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return np.broadcast_to(self.units, self.outcome.units.shape).astype(float)

    def ask(self) -> Shares:
        """The split itself.

        Raises:
            AllocgymError: the carrier has another number of groups or slices.
        """
        inst = self.outcome.instance
        if self.units.shape[1] != inst.present.shape[1] or self.units[0].sum() != inst.budget[0]:
            raise AllocgymError(
                f"agent {self.name!r}: {inst.budget[0]} groups over {inst.present.shape[1]} slices "
                f"expected, its split is {self.units[0].tolist()}"
            )
        return Shares(np.broadcast_to(self.units, self.outcome.units.shape).copy())


class Expert(Static):
    """TRACTOR's static expert: 3, 5 and 9 groups for mMTC, URLLC and eMBB."""

    def __init__(self, problem: PRBSlicing) -> None:
        super().__init__(problem, np.array([3, 5, 9]), "expert")


class RandomWalk(SlicingAgent):
    """TRACTOR's "original" policy: each period one of its moves at random, keeping included."""

    name = "random walk"

    def _start(self) -> None:
        seeds = self.seed + np.arange(self.spec.batch_size)
        self._stream = randomness.stream(seeds, "random walk")[0]

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return self.ask().units.astype(float)

    def ask(self) -> Shares:
        """Move one group, or none; a move a slice cannot afford keeps the split."""
        units = self.memory.units.copy()
        moves = np.array(((0, 0), *all_moves(units.shape[1])))
        u = randomness.uniform(self._stream, self.memory.period)
        pair = moves[(u * len(moves)).astype(np.int64)]
        rows = np.arange(len(units))
        inst = self.outcome.instance
        legal = (units[rows, pair[:, 0]] > 1) & inst.present[rows, pair[:, 1]]
        rows = rows[legal & (pair[:, 0] != pair[:, 1])]
        units[rows, pair[rows, 0]] -= 1
        units[rows, pair[rows, 1]] += 1
        return Shares(units)


class UserProportional(SlicingAgent):
    """In proportion to users."""

    name = "user-proportional"

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return self.outcome.instance.users.astype(float)


class BacklogProportional(SlicingAgent):
    """In proportion to what waits (in blocks); with nothing waiting, to users."""

    name = "backlog-proportional"

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        waiting = self.memory.waiting
        none = waiting.sum(1, keepdims=True) <= 0
        return np.where(none, self.outcome.instance.users, waiting)


class DemandProportional(SlicingAgent):
    """In proportion to need: backlog and arrivals over one period, in blocks.

    On a live cell this is what `sum_requested_prbs` says.
    """

    name = "demand-proportional"

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        need = self.memory.need
        none = need.sum(1, keepdims=True) <= 0
        return np.where(none, self.outcome.instance.users, need)


class MaxWeight(SlicingAgent):
    """Tassiulas and Ephremides 1992: spare groups go to the largest backlog times rate."""

    name = "max-weight"

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        inst = self.outcome.instance
        backlog = self.outcome.backlog.sum(2)
        served, granted = self.outcome.served.sum(2), self.outcome.granted.sum(2)
        rate = np.where(granted > 0, served / np.maximum(granted, 1e-9), 1.0)
        weight = np.where(inst.present, backlog * rate + 1e-6 * inst.users, -1.0)
        best = weight.argmax(1)
        return (np.arange(weight.shape[1]) == best[:, None]).astype(float)


class UrllcFirst(SlicingAgent):
    """URLLC gets its need with a margin, then mMTC its need, eMBB the rest.

    Args:
        problem: radio slicing.
        margin: on URLLC's need, the larger of the last period's and the average.
    """

    def __init__(self, problem: PRBSlicing, margin: float = 1.3) -> None:
        super().__init__(problem)
        self.margin = margin
        self.name = "urllc-first" if margin == 1.3 else f"urllc-first-{margin:g}"

    def ask(self) -> Shares:
        """Whole groups in the order of priority, rounded up."""
        inst, m = self.outcome.instance, self.memory
        group = inst.blocks[:, None] / inst.budget[:, None]
        urgent, light = inst.kind == URLLC, inst.kind == MMTC
        need = np.maximum(m.need, m.average)
        want = np.where(urgent, self.margin * need, np.where(light, need, 0.0))
        units = np.maximum(np.ceil(want / group - 1e-9), 1).astype(np.int64) * inst.present
        left = inst.budget - inst.present.sum(1)
        out = inst.present.astype(np.int64)
        for first in (URLLC, MMTC):
            for j in range(units.shape[1]):
                extra = np.where(inst.kind[:, j] == first, units[:, j] - out[:, j], 0)
                extra = np.clip(extra * inst.present[:, j], 0, left)
                out[:, j] += extra
                left = left - extra
        rest = inst.present & (inst.kind == EMBB)
        none = ~rest.any(1, keepdims=True)
        rest = np.where(none, inst.present, rest).astype(float)
        rest *= np.maximum(m.need, 1e-3)
        target = out + rest / np.maximum(rest.sum(1, keepdims=True), 1e-9) * left[:, None]
        whole = np.floor(target + 1e-9).astype(np.int64)
        lack = inst.budget - whole.sum(1)
        best = (target - whole).argmax(1)
        whole[np.arange(len(whole)), best] += lack
        return Shares(whole)

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return self.ask().units.astype(float)


class Hysteresis(SlicingAgent):
    """A PI controller on smoothed need that moves one group at a time, and only for a reason.

    The target follows ``need + ki * integral(waiting)``; a group moves from the slice with most
    above its target to the one with most below, where both gaps exceed ``band`` groups.
    """

    name = "pi-hysteresis"

    def __init__(self, problem: PRBSlicing, ki: float = 0.3, band: float = 0.6) -> None:
        super().__init__(problem)
        self.ki, self.band = ki, band

    def _start(self) -> None:
        self._integral: np.ndarray | None = None
        self._smooth: np.ndarray | None = None

    def _heard(self) -> None:
        m = self.memory
        if self._integral is None or self._smooth is None:
            self._integral, self._smooth = np.zeros_like(m.need), m.need.copy()
        self._smooth = 0.5 * self._smooth + 0.5 * m.need
        self._integral = np.clip(0.8 * self._integral + m.waiting, 0, 100)

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        assert self._integral is not None and self._smooth is not None
        wanted = self._smooth + self.ki * self._integral
        none = wanted.sum(1, keepdims=True) <= 0
        return np.where(none, self.outcome.instance.users, wanted + 0.5)

    def ask(self) -> Shares:
        """Move at most one group."""
        inst = self.outcome.instance
        wanted = self.blocks() * inst.present
        target = (
            1 + wanted / wanted.sum(1, keepdims=True) * (inst.budget - inst.present.sum(1))[:, None]
        )
        units = self.memory.units.copy()
        gap = np.where(inst.present, units - target, 0.0)
        giver = np.where(units > 1, gap, -np.inf).argmax(1)
        taker = np.where(inst.present, gap, np.inf).argmin(1)
        rows = np.arange(len(units))
        move = (gap[rows, giver] > self.band) & (gap[rows, taker] < -self.band) & (giver != taker)
        rows = rows[move]
        units[rows, giver[rows]] -= 1
        units[rows, taker[rows]] += 1
        return Shares(units)


class DriftPlusPenalty(SlicingAgent):
    """Neely 2010: each period the split with the least Lyapunov drift plus V times the penalty.

    Backlogs and a virtual queue of URLLC's lateness weigh the work a split would do; expected
    arrivals are the last period's. All splits are tried.
    """

    name = "drift-plus-penalty"

    def __init__(self, problem: PRBSlicing, v: float = 0.5) -> None:
        super().__init__(problem)
        self.v = v

    def _start(self) -> None:
        self._virtual: np.ndarray | None = None

    def _heard(self) -> None:
        if self._virtual is None:
            self._virtual = np.zeros_like(self.memory.late)
        urgent = self.outcome.instance.kind == URLLC
        self._virtual = np.maximum(self._virtual + 10 * self.memory.late - 0.01, 0) * urgent

    def blocks(self) -> np.ndarray:
        """See `SlicingAgent.blocks`."""
        return self.ask().units.astype(float)

    def ask(self) -> Shares:
        """The best of all splits."""
        assert self._virtual is not None
        inst, m = self.outcome.instance, self.memory
        groups, n = int(inst.budget[0]), int(inst.present[0].sum())
        table = np.zeros((len(all_splits(groups, n)), m.need.shape[1]), np.int64)
        table[:, :n] = all_splits(groups, n)
        size = inst.blocks[:, None, None] / groups
        expected = np.maximum(m.need, m.average)[:, None]
        done = np.minimum(table * size, expected)
        weight = m.waiting + (1 + self._virtual) * expected[:, 0] + 1e-3
        penalty = np.where(inst.kind == URLLC, 2.0, 1.0)
        lacks = (expected - done) / np.maximum(expected, 1e-6) * penalty[:, None]
        value = (weight[:, None] * done).sum(2) - self.v * inst.blocks[:, None] * lacks.sum(2)
        # Headroom for the urgent slice decides between equals.
        value += 0.05 * ((table * size) * (inst.kind == URLLC)[:, None]).sum(2)
        return Shares(table[value.argmax(1)])
