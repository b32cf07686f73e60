"""Data mixing as a decision problem: objective, observation, action."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.arrays import Array, columns, namespace
from allocgym.envs.core.contracts import Problem, Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.data_mixing.records import MixingInstance, MixingMemory, MixingOutcome

ROW_FEATURES = (
    "log loss / start", "log loss slope, 1 period", "log loss slope, 2 periods",
    "log loss / own lowest", "log loss / mean of domains", "first-period log drop",
    "last share x K", "share so far x K", "log prior x K", "log weight x K", "is source",
    "constraint slack", "fraction of limit used", "epochs seen",
)  # fmt: skip
CONTEXT_FEATURES = (
    "progress", "hidden horizon", "learning rate", "learning rate left", "log K", "log effort",
    "noise", "worst-domain objective", "constrained",
)  # fmt: skip
BOUND = 10.0


def rise(heldout: Array, start: Array, instance: MixingInstance) -> Array:
    """Mean rise of the source domains' loss since the start, ``(n, batch)`` in, ``(batch,)`` out."""
    source = columns(instance.source)
    count = source.sum(0)
    return ((heldout - start) * source).sum(0) / (count + (count == 0))


def objective(heldout: Array, start: Array, instance: MixingInstance) -> tuple[Array, Array]:
    """Score held-out losses: lower is better. NumPy arrays or tensors, claimants first.

    Args:
        heldout: ``(n, batch)`` losses now, bits per byte.
        start: ``(n, batch)`` losses at the start.
        instance: gives weights, kind of objective and constraint.

    Returns:
        ``(batch,)`` objective without the penalty, and ``(batch,)`` violation in bits per byte:
        how far the sources' mean loss has risen beyond ``epsilon``.
    """
    xp = namespace(heldout)
    value = (columns(instance.weight) * heldout).sum(0)
    if (instance.worst > 0).any():
        top = xp.where(columns(instance.present), heldout, heldout * 0 - 1e9)
        top = top.max(0) if xp is np else top.max(0).values
        value = xp.where(instance.worst > 0, top, value)
    excess = rise(heldout, start, instance) - instance.epsilon
    return value, excess.clip(0, None)


class DataMixing(Problem[MixingOutcome, MixingMemory, Shares]):
    """Divide each period's training tokens over data domains.

    Args:
        n_max: rows in observation and action, >= the domains of every instance (2 to 32).
        kappa: reach of the action; ``share_j ~ prior_j exp(kappa a_j)``.
    """

    id: ClassVar[str] = "data-mixing"
    outcome_type = MixingOutcome
    decision_type = Shares
    features: ClassVar[tuple[str, ...]] = ROW_FEATURES + CONTEXT_FEATURES

    def __init__(self, n_max: int = 8, kappa: float = budget.KAPPA) -> None:
        if not 2 <= n_max <= 32:
            raise AllocgymError(f"n_max: 2 to 32 expected, given {n_max}")
        if not kappa > 0:
            raise AllocgymError(f"kappa: a number > 0 expected, given {kappa}")
        self.n_max = n_max
        self.kappa = kappa
        f, c = len(ROW_FEATURES), len(CONTEXT_FEATURES)
        self.observation_space = spaces.Dict(
            claimants=spaces.Box(-BOUND, BOUND, (n_max, f), np.float32),
            context=spaces.Box(-BOUND, BOUND, (c,), np.float32),
            present=spaces.MultiBinary(n_max),
        )
        self.action_space = spaces.Box(-1.0, 1.0, (n_max,), np.float32)

    def begin(self, outcome: MixingOutcome) -> MixingMemory:
        """See `Problem.begin`."""
        losses = outcome.losses
        heldout = columns(outcome.heldout)
        value, excess = objective(heldout, heldout, outcome.instance)
        return MixingMemory(
            start=losses, last=losses, before=losses, earlier=losses, lowest=losses,
            drop=losses * 0, share=outcome.instance.prior, seen=outcome.seen,
            objective=value, violation=excess, heldout_start=outcome.heldout,
            period=outcome.period, lr=outcome.lr, lr_left=outcome.lr_left,
            instance=outcome.instance,
        )  # fmt: skip

    def update(self, memory: MixingMemory, outcome: MixingOutcome) -> MixingMemory:
        """See `Problem.update`. An outcome that is not ``valid`` leaves the losses as they were."""
        xp = namespace(outcome.losses)
        losses = outcome.losses
        if not outcome.valid.all():
            losses = xp.where(outcome.valid[:, None], losses, memory.last)
        value, excess = objective(
            columns(outcome.heldout), columns(memory.heldout_start), outcome.instance
        )
        first = outcome.period == 1
        drop = memory.drop
        if first.any():
            drop = xp.where(first[:, None], xp.log(losses / memory.start), drop)
        units = columns(outcome.units)
        return MixingMemory(
            start=memory.start, last=losses, before=memory.last, earlier=memory.before,
            lowest=xp.minimum(memory.lowest, losses), drop=drop,
            share=columns(units / units.sum(0)), seen=outcome.seen,
            objective=value, violation=excess, heldout_start=memory.heldout_start,
            period=outcome.period, lr=outcome.lr, lr_left=outcome.lr_left,
            instance=outcome.instance,
        )  # fmt: skip

    def encode(self, memory: MixingMemory) -> dict[str, Any]:
        """See `Problem.encode`. Accepts a memory of tensors too, and is differentiable there."""
        inst = memory.instance
        xp = namespace(memory.last)
        dtype = np.float32 if xp is np else memory.last.dtype
        present = columns(inst.present)
        mask = present * 1.0 if xp is not np else present.astype(dtype)
        count = mask.sum(0)
        log = xp.log(columns(memory.last))
        budget_so_far = memory.period * inst.budget
        seen = columns(memory.seen)
        slack = xp.where(
            inst.epsilon < 1e6,
            (inst.epsilon - rise(columns(memory.last), columns(memory.start), inst)) * 10,
            count * 0,
        )
        rows = (
            5 * (log - xp.log(columns(memory.start))),
            20 * (log - xp.log(columns(memory.before))),
            20 * (log - xp.log(columns(memory.earlier))),
            20 * (log - xp.log(columns(memory.lowest))),
            2 * (log - (log * mask).sum(0) / count),
            5 * columns(memory.drop),
            columns(memory.share) * count,
            seen * (count / (budget_so_far + (budget_so_far == 0))),
            xp.log(columns(inst.prior) * count + 1e-4),
            xp.log(columns(inst.weight) * count + 1e-2),
            columns(inst.source) * 1.0,
            slack * mask,
            seen / columns(inst.limit),
            seen / columns(inst.unique),
        )
        progress = memory.period / inst.horizon * (1 - inst.hidden)
        context = (
            progress, inst.hidden, memory.lr, memory.lr_left * (1 - inst.hidden), xp.log(count),
            xp.log(inst.effort), 50 * inst.noise, inst.worst,
            (inst.epsilon < 1e6) * 1.0,
        )  # fmt: skip
        if xp is np:
            block = np.empty((len(rows), *mask.shape), dtype)
            for k, row in enumerate(rows):
                np.multiply(row, mask, out=block[k], casting="same_kind")
            np.clip(block, -BOUND, BOUND, out=block)
            side = np.empty((len(context), mask.shape[1]), dtype)
            for k, entry in enumerate(context):
                side[k] = entry
            np.clip(side, -BOUND, BOUND, out=side)
            return {
                "claimants": block.transpose(2, 1, 0),
                "context": side.T,
                "present": inst.present.view(np.int8),
            }
        block = xp.stack([row * mask for row in rows]).clip(-BOUND, BOUND)
        side = xp.stack([entry * xp.ones_like(count) for entry in context]).clip(-BOUND, BOUND)
        return {"claimants": block.permute(2, 1, 0), "context": side.T, "present": inst.present}

    def decode(self, action: np.ndarray, memory: MixingMemory) -> Shares:
        """Tilt the prior, apply floors and limits, round to whole units. See `Problem.decode`."""
        inst = memory.instance
        array = self.check_action(action, len(inst.budget))
        shares = budget.anchored_shares(
            columns(array).astype(np.float64), columns(inst.prior), self.kappa
        )
        return self.round(columns(shares), memory)

    def round(self, shares: np.ndarray, memory: MixingMemory) -> Shares:
        """Turn ``(batch, n)`` shares into whole units within this period's floors and limits."""
        inst = memory.instance
        total = inst.budget
        left = columns(inst.limit - memory.seen)
        floor = columns(inst.floor)
        high = left if (left < total).any() else None
        low = np.minimum(floor, left) if floor.any() else None
        return Shares(columns(budget.split_units(columns(shares), total, low, high)))

    def action_of(self, decision: Shares, memory: MixingMemory) -> np.ndarray:
        """See `Problem.action_of`."""
        prior = columns(memory.instance.prior)
        action = budget.action_for(columns(decision.fractions), prior, self.kappa)
        return columns(action).astype(np.float32)

    def cost(self, decision: Shares) -> np.ndarray:
        """See `Problem.cost`."""
        return decision.units.sum(1)

    def reward(self, before: MixingMemory, after: MixingMemory) -> dict[str, np.ndarray]:
        """Fall of the objective and of the penalty: potential-based, so the undiscounted return is
        the fall over the whole episode.
        """  # noqa: D205
        penalty = after.instance.penalty
        return {
            "objective": before.objective - after.objective,
            "constraint": penalty * (before.violation - after.violation),
        }

    def check(self, decision: Shares, memory: MixingMemory) -> None:
        """See `Problem.check`."""
        inst = memory.instance
        units = np.asarray(decision.units)
        if units.shape != inst.present.shape or not np.issubdtype(units.dtype, np.integer):
            raise AllocgymError(
                f"units: integers of shape {inst.present.shape} expected, "
                f"given {units.dtype} of shape {units.shape}"
            )
        if (units.sum(1) != inst.budget).any():
            raise AllocgymError(
                f"units: each row must sum to the period's budget {inst.budget.tolist()}, "
                f"given sums {units.sum(1).tolist()}"
            )
        low = np.minimum(inst.floor, inst.limit - memory.seen)
        if (units < low).any() or (units > inst.limit - memory.seen).any():
            raise AllocgymError(
                f"units: between {low.tolist()} and {(inst.limit - memory.seen).tolist()} "
                f"expected, given {units.tolist()}"
            )
