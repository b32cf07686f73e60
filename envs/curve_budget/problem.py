"""Curve budgets as a decision problem: stop, wait or go on, over configurations that cannot copy."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.arrays import row_total
from allocgym.envs.core.contracts import Decision, Outcome, Problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record

STOP, WAIT, GO = 0, 1, 2
ROW_FEATURES = (
    "rank",
    "z-score",
    "fall since last period",
    "fall the period before",
    "above best",
    "trained",
    "untouched",
    "alive",
    "open",
)
CONTEXT_FEATURES = ("budget left", "log configurations", "gain so far", "above target", "periods")
BOUND = 10.0


@dataclasses.dataclass(eq=False)
class CurveInstance(Record):
    """What is known of an episode before it starts.

    Attributes:
        present: ``(batch, n)`` bool, configurations; the rest is padding.
        limit: ``(batch,)`` int64 units in a whole curve.
        total: ``(batch,)`` int64 units of the episode.
        target: ``(batch,)`` float64 loss to reach, in the unit of ``scores``.
    """

    present: np.ndarray
    limit: np.ndarray
    total: np.ndarray
    target: np.ndarray


@dataclasses.dataclass(eq=False)
class Allotment(Decision):
    """Who is trained on and who is given up.

    Attributes:
        units: ``(batch, n)`` int64, a row sums to what the period grants.
        stop: ``(batch, n)`` bool, closed for good.
    """

    units: np.ndarray
    stop: np.ndarray

    @property
    def fractions(self) -> np.ndarray:
        """``(batch, n)`` shares of the period's units."""
        return np.asarray(self.units / np.maximum(self.units.sum(1, keepdims=True), 1))


@dataclasses.dataclass(eq=False)
class CurveOutcome(Outcome):
    """What is known after a period.

    Attributes:
        scores: ``(batch, n)`` float64 lowest validation loss so far over the task's median first loss.
        heldout: ``(batch, n)`` float64 test loss where that was lowest; agents are not shown it.
        alive: ``(batch, n)`` bool, the curve has not ended in NaN.
        closed: ``(batch, n)`` bool, stopped for good.
        used: ``(batch, n)`` int64 units spent on each.
        grant: ``(batch,)`` int64 units the next decision divides.
        left: ``(batch,)`` int64 units left in the episode.
        period: ``(batch,)`` int64 decisions made.
        instance: what is known before the episode.
    """

    scores: np.ndarray
    heldout: np.ndarray
    alive: np.ndarray
    closed: np.ndarray
    used: np.ndarray
    grant: np.ndarray
    left: np.ndarray
    period: np.ndarray
    instance: CurveInstance


@dataclasses.dataclass(eq=False)
class CurveMemory(Record):
    """What is remembered of an episode.

    Attributes:
        last, before, earlier: ``(batch, n)`` float64 log scores of the last three periods.
        start: ``(batch,)`` float64 lowest log score before training.
        reached: ``(batch,)`` float64 units after which the target was first measured (1 where it was met
            before any training); infinity where it has not been.
        objective: ``(batch,)`` float64 test loss of the configuration with the lowest measured loss.
        outcome: the latest outcome.
    """

    last: np.ndarray
    before: np.ndarray
    earlier: np.ndarray
    start: np.ndarray
    reached: np.ndarray
    objective: np.ndarray
    outcome: CurveOutcome


class CurveBudget(Problem[CurveOutcome, CurveMemory, Allotment]):
    """Divide units of training over fixed configurations whose curves are recorded.

    Recorded curves hold one configuration each, so there is no copying: it is refused.

    Args:
        n_max: rows of configurations, 2 to 64.
    """

    id: ClassVar[str] = "curve-budget"
    outcome_type = CurveOutcome
    decision_type = Allotment
    traces: ClassVar[dict[str, str]] = {"scores": "lowest validation loss, over the first"}

    def __init__(self, n_max: int = 16) -> None:
        if not 2 <= n_max <= 64:
            raise AllocgymError(f"n_max: 2 to 64 expected, given {n_max}")
        self.n_max = n_max
        self.observation_space = spaces.Dict(
            claimants=spaces.Box(-BOUND, BOUND, (n_max, len(ROW_FEATURES)), np.float32),
            context=spaces.Box(-BOUND, BOUND, (len(CONTEXT_FEATURES),), np.float32),
            present=spaces.MultiBinary(n_max),
        )
        self.action_space = spaces.MultiDiscrete(np.full(n_max, 3))

    def begin(self, outcome: CurveOutcome) -> CurveMemory:
        """See `Problem.begin`."""
        last = np.log(outcome.scores)
        start = np.where(outcome.instance.present, last, np.inf).min(1)
        reached = _reached(np.full(len(start), np.inf), outcome)
        return CurveMemory(last, last, last, start, reached, chosen(outcome), outcome)

    def update(self, memory: CurveMemory, outcome: CurveOutcome) -> CurveMemory:
        """See `Problem.update`."""
        return CurveMemory(
            last=np.log(outcome.scores),
            before=memory.last,
            earlier=memory.before,
            start=memory.start,
            reached=_reached(memory.reached, outcome),
            objective=chosen(outcome),
            outcome=outcome,
        )

    def room(self, outcome: CurveOutcome) -> np.ndarray:
        """``(batch, n)`` int64 units that each open configuration can still use."""
        return room(outcome.instance, outcome.used, outcome.closed, outcome.alive)

    def encode(self, memory: CurveMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        out, inst = memory.outcome, memory.outcome.instance
        here = inst.present
        count = here.sum(1, keepdims=True)
        rank = np.where(here, memory.last, np.inf).argsort(1).argsort(1) / count
        mean = row_total(np.where(here, memory.last, 0))[:, None] / count
        spread = np.sqrt(row_total(np.where(here, (memory.last - mean) ** 2, 0))[:, None] / count)
        lowest = np.where(here, memory.last, np.inf).min(1, keepdims=True)
        rows = np.stack(
            [
                rank,
                (memory.last - mean) / (spread + 1e-3),
                20 * (memory.before - memory.last),
                20 * (memory.earlier - memory.before),
                5 * (memory.last - lowest),
                out.used / inst.limit[:, None],
                out.used == 0,
                out.alive,
                self.room(out) > 0,
            ],
            2,
        )
        context = np.stack(
            [
                out.left / inst.total,
                np.log(count[:, 0]),
                5 * (memory.start - lowest[:, 0]),
                5 * (lowest[:, 0] - np.log(inst.target)),
                out.period / 20,
            ],
            1,
        )
        return {
            "claimants": (rows * here[..., None]).clip(-BOUND, BOUND).astype(np.float32),
            "context": context.clip(-BOUND, BOUND).astype(np.float32),
            "present": here.astype(np.int8),
        }

    def divide(
        self, weights: np.ndarray, memory: CurveMemory, stop: np.ndarray | None = None
    ) -> Allotment:
        """Divide what is granted in proportion to weights, within what curves have left.

        Stopping is refused where too little would stay open to use the grant.
        """
        out = memory.outcome
        room = self.room(out)
        closing = np.zeros(room.shape, bool) if stop is None else stop & (room > 0)
        short = np.where(closing, 0, room).sum(1) < out.grant
        closing &= ~short[:, None]
        room = np.where(closing, 0, room)
        share = np.where(room > 0, np.maximum(weights, 0) + 1e-9, 0.0)
        # Episodes that are over are granted nothing.
        over = out.grant == 0
        share[over, 0], room[over, 0] = 1.0, 1
        share /= row_total(share)[:, None]
        units = budget.split_units(share.T, np.maximum(out.grant, 1), None, room.T).T
        return Allotment(np.where(over[:, None], 0, units), closing)

    def decode(self, action: np.ndarray, memory: CurveMemory) -> Allotment:
        """Those told to go on share the period's units evenly; those told to stop are closed."""
        codes = self.check_action(action, len(memory.start))
        return self.divide((codes == GO) * 1.0, memory, codes == STOP)

    def action_of(self, decision: Allotment, memory: CurveMemory) -> np.ndarray:
        """See `Problem.action_of`.

        Raises:
            AllocgymError: the units are not an even split.
        """
        codes = np.where(decision.units > 0, GO, np.where(decision.stop, STOP, WAIT))
        again = self.decode(codes, memory)
        if (again.units != decision.units).any() or (again.stop != decision.stop).any():
            raise AllocgymError("decision: no action names it; spend it on the back end itself")
        return codes

    def tabulate(self, decision: Allotment, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`: who went on for how long, who was closed."""
        given = [f"{i}:+{u}" for i, u in enumerate(decision.units[0]) if u]
        closed = [str(i) for i in np.flatnonzero(decision.stop[0])]
        return {"units": " ".join(given), "closed": " ".join(closed)}

    def cost(self, decision: Allotment) -> np.ndarray:
        """See `Problem.cost`: units."""
        return np.asarray(decision.units.sum(1))

    def reward(self, before: CurveMemory, after: CurveMemory) -> dict[str, np.ndarray]:
        """At the end: log of the lowest first loss over the test loss of the best configuration."""
        final = after.start - np.log(after.objective)
        return {"objective": np.where(after.outcome.done, final, 0.0)}

    def scores(self, memory: CurveMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: the loss at the end, and when the target was reached."""
        return {
            "log final test loss": np.log(memory.objective),
            "time to target (units; inf where not reached)": memory.reached,
            "target reached (share)": np.isfinite(memory.reached) * 1.0,
        }

    def status(self, decision: Allotment, outcome: CurveOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: who went on, the best measured loss beside the target."""
        n = int(outcome.instance.present[0].sum())
        given = " ".join(f"{i}:+{u}" for i, u in enumerate(decision.units[0, :n]) if u)
        return (
            f"units {given}  closed {int(outcome.closed[0].sum())}  "
            f"best {outcome.scores[0, :n].min():.4f} (target {outcome.instance.target[0]:.4f})"
        )

    def check(self, decision: Allotment, memory: CurveMemory) -> None:
        """See `Problem.check`; copying is refused."""
        if not isinstance(decision, Allotment):
            raise AllocgymError(
                "decision: recorded curves hold one configuration each, so nothing can be copied; "
                f"an Allotment expected, given {type(decision).__name__}"
            )
        out = memory.outcome
        if (decision.units < 0).any() or (decision.units > self.room(out)).any():
            raise AllocgymError(
                f"units: from 0 to {self.room(out).tolist()}, given {decision.units.tolist()}"
            )
        if (decision.units.sum(1) != out.grant).any():
            raise AllocgymError(
                f"units: a sum of {out.grant.tolist()} expected, given {decision.units.tolist()}"
            )


def chosen(outcome: CurveOutcome) -> np.ndarray:
    """Test loss of the configuration with the lowest measured loss, ``(batch,)``."""
    best = np.where(outcome.instance.present, outcome.scores, np.inf).argmin(1)
    return np.asarray(outcome.heldout[np.arange(len(best)), best])


def room(
    instance: CurveInstance, used: np.ndarray, closed: np.ndarray, alive: np.ndarray
) -> np.ndarray:
    """``(batch, n)`` int64 units that each configuration can still use: none where it is closed."""
    can = instance.present & ~closed & alive
    return np.asarray(np.where(can, instance.limit[:, None] - used, 0))


def _reached(before: np.ndarray, outcome: CurveOutcome) -> np.ndarray:
    """Units until the target was measured, ``(batch,)``, given those until it was before."""
    best = np.where(outcome.instance.present, outcome.scores, np.inf).min(1)
    used = np.maximum(outcome.used.sum(1), 1).astype(float)
    return np.where((best <= outcome.instance.target) & np.isinf(before), used, before)
