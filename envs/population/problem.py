"""Populations as a decision problem: who copies whom, with which knobs, for how many steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget, randomness
from allocgym.envs.core.arrays import row_total
from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.population.records import Plan, PopulationMemory, PopulationOutcome

KNOBS = ("learning_rate", "batch_size", "weight_decay", "momentum")
DONORS = (0.0, 0.125, 0.25, 0.5)
"""Ranks a member may copy from, as a fraction of the members alive (0 is the best)."""
FACTORS = (0.8, 1.0, 1.2)
"""What a knob may be multiplied by; the action after these draws it anew (PBT's explore)."""
LEVELS = (0.0, 0.5, 1.0, 2.0)
"""Steps of a member relative to the others."""
ROW_FEATURES = (
    "rank",
    "z-score",
    "slope, 1 report",
    "slope, 2 reports",
    "above own best",
    "above best member",
    "extrapolated gain",
    "steps / fair share",
    "age since copy",
    "alive",
    "ready",
)
CONTEXT_FEATURES = (
    "budget left",
    "hidden horizon",
    "log members",
    "gain so far",
    "gain of the last report",
    "log spread",
    "noise",
    "edge told",
    "monotone",
)
BOUND = 10.0


class Population(Problem[PopulationOutcome, PopulationMemory, Plan]):
    """Decide for every member whom to copy, how to change its knobs and how long to train.

    Args:
        n_max: rows of members, 2 to 64.
        knobs: hyperparameters that are decided; each back end says which it supports.
        dense: True pays the fall of the best measured loss every period (it teaches greed: see the
            deceptive toy); False pays the fall of the objective at the end.
    """

    id: ClassVar[str] = "population"
    outcome_type = PopulationOutcome
    decision_type = Plan
    traces: ClassVar[dict[str, str]] = {"scores": "validation loss"}

    def __init__(
        self, n_max: int = 8, knobs: tuple[str, ...] = ("learning_rate",), dense: bool = False
    ) -> None:
        if not 2 <= n_max <= 64:
            raise AllocgymError(f"n_max: 2 to 64 expected, given {n_max}")
        knobs = tuple(knobs)
        for knob in knobs:
            if knob not in KNOBS:
                raise unknown("knobs", knob, KNOBS)
        if not knobs or len(set(knobs)) < len(knobs):
            raise AllocgymError(f"knobs: one or more different names expected, given {knobs}")
        self.n_max, self.knobs, self.dense = n_max, knobs, dense
        k = len(knobs)
        self.features = (*ROW_FEATURES, *(f"log {name}" for name in knobs), *CONTEXT_FEATURES)
        rows = len(ROW_FEATURES) + k
        self.choices = np.array([1 + len(DONORS), *[len(FACTORS) + 1] * k, len(LEVELS)])
        self.observation_space = spaces.Dict(
            claimants=spaces.Box(-BOUND, BOUND, (n_max, rows), np.float32),
            context=spaces.Box(-BOUND, BOUND, (len(CONTEXT_FEATURES),), np.float32),
            present=spaces.MultiBinary(n_max),
        )
        self.action_space = spaces.MultiDiscrete(np.tile(self.choices, n_max))

    def begin(self, outcome: PopulationOutcome) -> PopulationMemory:
        """See `Problem.begin`."""
        last = np.log(outcome.scores)
        lowest = np.where(outcome.alive, last, np.inf).min(1)
        return PopulationMemory(
            last=last,
            before=last,
            earlier=last,
            best=last,
            start=lowest,
            age=last * 0,
            objective=chosen(outcome),
            outcome=outcome,
        )

    def update(self, memory: PopulationMemory, outcome: PopulationOutcome) -> PopulationMemory:
        """See `Problem.update`. What a member copied includes the donor's past."""

        def lineage(array: np.ndarray) -> np.ndarray:
            return np.take_along_axis(array, outcome.donor, 1)

        told = outcome.ready
        last, before, best = lineage(memory.last), lineage(memory.before), lineage(memory.best)
        earlier, age = lineage(memory.earlier), memory.age + told
        now = np.where(told, np.log(outcome.scores), last)
        copied = outcome.donor != np.arange(self.n_max)
        return PopulationMemory(
            last=now,
            before=np.where(told, last, before),
            earlier=np.where(told, before, earlier),
            best=np.minimum(best, now),
            start=memory.start,
            age=np.where(copied, told * 1.0, age),
            objective=chosen(outcome),
            outcome=outcome,
        )

    def encode(self, memory: PopulationMemory) -> dict[str, np.ndarray]:
        """See `Problem.encode`."""
        out = memory.outcome
        inst = out.instance
        here = inst.present & out.alive
        count = np.maximum(here.sum(1), 1)[:, None]
        rank = ranks(memory.last, here)
        mean = row_total(np.where(here, memory.last, 0))[:, None] / count
        spread = np.sqrt(row_total(np.where(here, (memory.last - mean) ** 2, 0))[:, None] / count)
        scale = np.maximum(spread, inst.noise[:, None] + 1e-4)
        lowest = np.where(here, memory.last, np.inf).min(1, keepdims=True)
        lowest = np.where(np.isfinite(lowest), lowest, memory.start[:, None])
        gain, previous = memory.before - memory.last, memory.earlier - memory.before
        # Aitken's extrapolation of a geometric series of gains, where there is one.
        ratio = np.clip(
            np.divide(gain, previous, np.zeros_like(gain), where=previous > 1e-9), 0, 0.9
        )
        fair = np.maximum(
            out.used.sum(1, keepdims=True) / np.maximum(inst.present.sum(1), 1)[:, None], 1
        )
        middle = np.sqrt(inst.low * inst.high)[:, None]
        reach = np.log(inst.high / inst.low)[:, None] / 2
        told = np.where(inst.edge > 0, inst.edge, 1.0)[:, None, None]
        knobs = np.log(out.knobs / middle) / reach
        rate = self.knobs.index("learning_rate") if "learning_rate" in self.knobs else None
        if rate is not None:
            relative = np.log(out.knobs[..., rate] / told[..., 0])
            knobs[..., rate] = np.where(inst.edge[:, None] > 0, relative, knobs[..., rate])
        rows = np.stack(
            [
                rank / count,
                (memory.last - mean) / scale,
                20 * gain,
                20 * previous,
                20 * (memory.last - memory.best),
                5 * (memory.last - lowest),
                20 * gain * ratio / (1 - ratio),
                out.used / fair,
                memory.age / 5,
                out.alive * 1.0,
                out.ready * 1.0,
                *np.moveaxis(knobs, 2, 0),
            ],
            2,
        )
        rows *= inst.present[..., None]
        total = inst.total
        context = np.stack(
            [
                out.left / total * (1 - inst.hidden),
                inst.hidden,
                np.log(inst.present.sum(1)),
                5 * (memory.start - lowest[:, 0]),
                20 * np.where(here, gain, -np.inf).max(1),
                np.log(scale[:, 0]) / 3,
                20 * inst.noise,
                (inst.edge > 0) * 1.0,
                inst.monotone * 1.0,
            ],
            1,
        )
        return {
            "claimants": np.nan_to_num(rows, posinf=BOUND, neginf=-BOUND)
            .clip(-BOUND, BOUND)
            .astype(np.float32),
            "context": np.nan_to_num(context, posinf=BOUND, neginf=-BOUND)
            .clip(-BOUND, BOUND)
            .astype(np.float32),
            "present": inst.present.astype(np.int8),
        }

    def decode(self, action: np.ndarray, memory: PopulationMemory) -> Plan:
        """Resolve donors against the measured losses, all at once; change knobs; round steps."""
        out = memory.outcome
        inst = out.instance
        batch = len(out.period)
        array = self.check_action(action, batch).reshape(batch, self.n_max, -1)
        donor = self._donors(array[..., 0], memory)
        knobs = np.take_along_axis(out.knobs, donor[..., None], 1)
        codes = array[..., 1:-1]
        factor = np.array([*FACTORS, 1.0])[codes]
        fresh = inst.low[:, None] * (inst.high / inst.low)[:, None] ** self._resampled(out)
        changed = np.where(codes == len(FACTORS), fresh, knobs * factor)
        changed = np.where(out.ready[..., None], changed, knobs)
        levels = np.array(LEVELS)[array[..., -1]]
        return Plan(donor, self.within(changed, knobs, memory), self.divide(levels, memory))

    def _donors(self, codes: np.ndarray, memory: PopulationMemory) -> np.ndarray:
        out = memory.outcome
        here = out.instance.present & out.alive
        order = np.argsort(np.where(here, memory.last, np.inf), axis=1, kind="stable")
        count = here.sum(1)[:, None]
        place = np.floor(np.array([0.0, *DONORS])[codes] * np.maximum(count - 1, 0)).astype(int)
        own = np.arange(self.n_max)
        found = np.take_along_axis(order, place, 1)
        return np.where((codes > 0) & out.ready & (count > 0), found, own)

    def _resampled(self, out: PopulationOutcome) -> np.ndarray:
        """Uniform draws in (0, 1), ``(batch, n, k)``: a function of episode, member, knob, period."""
        n, k = self.n_max, len(self.knobs)
        states = out.instance.stream[None] + np.arange(1, n * k + 1, dtype=np.uint64)[:, None] * (
            np.uint64(0x9E3779B97F4A7C15)
        )
        return randomness.uniform(states, out.period).T.reshape(-1, n, k)

    def within(self, knobs: np.ndarray, was: np.ndarray, memory: PopulationMemory) -> np.ndarray:
        """Clip knobs to their ranges, and a falling-only learning rate to what it was."""
        inst = memory.outcome.instance
        clipped = np.clip(knobs, inst.low[:, None], inst.high[:, None])
        if "learning_rate" in self.knobs and inst.monotone.any():
            rate = self.knobs.index("learning_rate")
            fallen = np.minimum(clipped[..., rate], was[..., rate])
            clipped[..., rate] = np.where(inst.monotone[:, None], fallen, clipped[..., rate])
        return np.asarray(np.where(inst.present[..., None], clipped, memory.outcome.knobs))

    def divide(self, weights: np.ndarray, memory: PopulationMemory) -> np.ndarray:
        """Divide the period's steps over the members that report, in proportion to weights."""
        out = memory.outcome
        share = weights * (out.ready & out.instance.present)
        none = share.sum(1) == 0
        share[none] = (out.ready & out.instance.present)[none]
        share = share / row_total(share)[:, None]
        return budget.largest_remainder((share * out.grant[:, None]).T, out.grant).T

    def action_of(self, decision: Plan, memory: PopulationMemory) -> np.ndarray:
        """See `Problem.action_of`.

        Raises:
            AllocgymError: the plan is none that an action can name (a knob set to an arbitrary value,
                a donor between the ranks offered, another split of steps).
        """
        batch = len(decision.steps)
        action = np.zeros((batch, self.n_max, len(self.choices)), np.int64)
        steps = decision.steps / np.maximum(decision.steps.max(1, keepdims=True), 1)
        for level in (1.0, 2.0):
            nearest = np.abs(steps[..., None] * level - np.array(LEVELS)).argmin(-1)
            fits = self.divide(np.array(LEVELS)[nearest], memory) == decision.steps
            action[..., -1] = np.where(fits.all(1)[:, None], nearest, action[..., -1])
        for code in range(len(DONORS), 0, -1):
            tried = self._donors(np.full((batch, self.n_max), code), memory)
            action[..., 0] = np.where(tried == decision.donor, code, action[..., 0])
        action[..., 0] *= decision.donor != np.arange(self.n_max)
        for code in (3, 2, 0, 1):
            action[..., 1:-1] = np.where(
                self._same(code, action, decision, memory), code, action[..., 1:-1]
            )
        flat = action.reshape(batch, -1)
        again = self.decode(flat, memory)
        if not all(
            np.allclose(a, b, rtol=1e-9)
            for a, b in zip(vars(again).values(), vars(decision).values(), strict=True)
        ):
            raise AllocgymError(
                "decision: no action names this plan; spend it on the back end itself"
            )
        return flat

    def _same(
        self, code: int, action: np.ndarray, plan: Plan, memory: PopulationMemory
    ) -> np.ndarray:
        """Where changing every knob by ``code`` gives the plan's knobs, ``(batch, n, k)``."""
        trial = action.copy()
        trial[..., 1:-1] = code
        tried = self.decode(trial.reshape(len(trial), -1), memory).knobs
        return np.isclose(tried, plan.knobs, rtol=1e-9)

    def tabulate(self, decision: Plan, names: Sequence[str]) -> dict[str, Any]:
        """See `Problem.tabulate`: steps, who copies whom, and every knob, by member."""
        m = len(names)
        copies = [f"{i}<-{d}" for i, d in enumerate(decision.donor[0, :m]) if d != i]
        cells = {"steps": " ".join(map(str, decision.steps[0, :m])), "copies": " ".join(copies)}
        for k, knob in enumerate(self.knobs):
            cells[knob] = " ".join(f"{x:.2g}" for x in decision.knobs[0, :m, k])
        return cells

    def cost(self, decision: Plan) -> np.ndarray:
        """See `Problem.cost`: member-steps."""
        return np.asarray(decision.steps.sum(1))

    def reward(self, before: PopulationMemory, after: PopulationMemory) -> dict[str, np.ndarray]:
        """Terminal: log of start over final objective. Dense: the fall of the best measured log loss."""
        if self.dense:
            return {"gain": _lowest(before) - _lowest(after)}
        final = after.start - np.log(np.maximum(after.objective, 1e-12))
        return {"objective": np.where(after.outcome.done, final, 0.0)}

    def scores(self, memory: PopulationMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: of the member that measured best, and of the best in hindsight."""
        out = memory.outcome
        here = out.instance.present & out.alive
        best = np.where(here, out.heldout, np.inf).min(1)
        return {
            "log test loss": np.log(np.maximum(memory.objective, 1e-12)),
            "log test loss, best in hindsight": np.log(
                np.where(here.any(1), best, memory.objective)
            ),
            "members alive": here.sum(1),
        }

    def status(self, decision: Plan, outcome: PopulationOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: steps, who copied whom, the best measured loss."""
        inst = outcome.instance
        here, n = inst.present[0] & outcome.alive[0], int(inst.present[0].sum())
        copies = [f"{i}<-{d}" for i, d in enumerate(decision.donor[0, :n]) if i != d]
        best = outcome.scores[0][here].min() if here.any() else float("nan")
        return (
            f"steps {decision.steps[0, :n].tolist()}  copies {' '.join(copies) or '-'}  "
            f"best {best:.4f}  alive {int(here.sum())}/{n}"
        )

    def check(self, decision: Plan, memory: PopulationMemory) -> None:
        """See `Problem.check`."""
        out = memory.outcome
        inst = out.instance
        decision.check_form(inst)
        if (decision.steps.sum(1) != out.grant).any():
            raise AllocgymError(
                f"steps: whole numbers >= 0 summing to {out.grant.tolist()} expected, "
                f"given {decision.steps.tolist()}"
            )
        idle = ~(out.ready & inst.present)
        if (idle & ((decision.donor != np.arange(self.n_max)) | (decision.steps > 0))).any():
            raise AllocgymError("plan: members that do not report keep their state, for 0 steps")
        slack = 1 + 1e-9
        outside = (decision.knobs < inst.low[:, None] / slack) | (
            decision.knobs > inst.high[:, None] * slack
        )
        if (outside & inst.present[..., None]).any():
            raise AllocgymError(
                f"knobs: values from {inst.low.tolist()} to {inst.high.tolist()} expected, "
                f"given {decision.knobs.tolist()}"
            )


def ranks(scores: np.ndarray, here: np.ndarray) -> np.ndarray:
    """Rank of each member by its loss, 0 is the best; those not ``here`` come last. ``(batch, n)``."""
    order = np.argsort(np.where(here, scores, np.inf), axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.broadcast_to(np.arange(scores.shape[1]), order.shape), 1)
    return rank


def chosen(outcome: PopulationOutcome) -> np.ndarray:
    """Test loss of the member alive with the lowest measured loss, ``(batch,)``."""
    here = outcome.instance.present & outcome.alive
    best = np.where(here, outcome.scores, np.inf).argmin(1)
    return np.asarray(outcome.heldout[np.arange(len(best)), best])


def _lowest(memory: PopulationMemory) -> np.ndarray:
    here = memory.outcome.instance.present & memory.outcome.alive
    return np.asarray(np.where(here, memory.best, np.inf).min(1))
