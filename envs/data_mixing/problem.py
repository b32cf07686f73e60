"""Data mixing as a decision problem: objective, observation, action."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces

from allocgym.envs.core import budget
from allocgym.envs.core.arrays import Array, columns, namespace, total
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.share import ShareProblem
from allocgym.envs.data_mixing import observation
from allocgym.envs.data_mixing.observation import (
    BOUND,
    CONTEXT_FEATURES,
    ROW_FEATURES,
    UNCONSTRAINED,
    rise,
)
from allocgym.envs.data_mixing.records import MixingInstance, MixingMemory, MixingOutcome


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
    value = total(columns(instance.weight) * heldout)
    if (instance.worst > 0).any():
        top = xp.where(columns(instance.present), heldout, heldout * 0 - 1e9)
        top = top.max(0) if xp is np else top.max(0).values
        value = xp.where(instance.worst > 0, top, value)
    if not (instance.epsilon < UNCONSTRAINED).any():
        return value, value * 0
    return value, (rise(heldout, start, instance) - instance.epsilon).clip(0, None)


class DataMixing(ShareProblem[MixingOutcome, MixingMemory]):
    """Divide each period's training tokens over data domains.

    Args:
        n_max: rows in observation and action, >= the domains of every instance (2 to 128).
        kappa: reach of the action; ``share_j ~ prior_j exp(kappa a_j)``.
    """

    id: ClassVar[str] = "data-mixing"
    outcome_type = MixingOutcome
    traces: ClassVar[dict[str, str]] = {"losses": "validation loss (bits per byte)"}
    features = ROW_FEATURES + CONTEXT_FEATURES

    def __init__(self, n_max: int = 8, kappa: float = budget.KAPPA) -> None:
        if not 2 <= n_max <= 128:
            raise AllocgymError(f"n_max: 2 to 128 expected, given {n_max}")
        super().__init__(n_max, kappa)
        f, c = len(ROW_FEATURES), len(CONTEXT_FEATURES)
        self.observation_space = spaces.Dict(
            claimants=spaces.Box(-BOUND, BOUND, (n_max, f), np.float32),
            context=spaces.Box(-BOUND, BOUND, (c,), np.float32),
            present=spaces.MultiBinary(n_max),
        )

    def begin(self, outcome: MixingOutcome) -> MixingMemory:
        """See `Problem.begin`."""
        inst = outcome.instance
        xp = namespace(outcome.losses)
        logs = xp.log(outcome.losses)
        heldout = columns(outcome.heldout)
        value, excess = objective(heldout, heldout, inst)
        mask = columns(inst.present)
        count = total(mask * 1.0)
        fixed = xp.stack(
            [
                xp.log(columns(inst.prior) * count + 1e-4) * mask,
                xp.log(columns(inst.weight) * count + 1e-2) * mask,
                columns(inst.source) * 1.0,
                1.0 / columns(inst.limit),
                1.0 / columns(inst.unique),
            ]
        )
        if xp is np:
            fixed = fixed.astype(logs.dtype, copy=False)
        flipped = fixed.transpose(2, 1, 0) if xp is np else fixed.permute(2, 1, 0)
        return MixingMemory(
            start=logs,
            last=logs,
            before=logs,
            earlier=logs,
            lowest=logs,
            drop=logs * 0,
            share=inst.prior + logs * 0,
            seen=outcome.seen,
            fixed=flipped,
            objective=value,
            violation=excess,
            heldout_start=outcome.heldout,
            period=outcome.period,
            lr=outcome.lr,
            lr_left=outcome.lr_left,
            instance=inst,
        )

    def update(self, memory: MixingMemory, outcome: MixingOutcome) -> MixingMemory:
        """See `Problem.update`. An outcome that is not ``valid`` leaves the losses as they were."""
        value, excess = objective(
            columns(outcome.heldout), columns(memory.heldout_start), outcome.instance
        )
        first = outcome.period == 1
        if isinstance(outcome.losses, np.ndarray):
            block = np.empty((4, *columns(memory.last).shape), memory.last.dtype)
            logs, lowest, drop, share = (columns(values) for values in block)
            observation.digest(
                np.log(columns(outcome.losses)),
                outcome.valid,
                first,
                columns(outcome.units),
                columns(memory.last),
                columns(memory.start),
                columns(memory.lowest),
                columns(memory.drop),
                *block,
            )
        else:
            xp = namespace(outcome.losses)
            logs = xp.log(outcome.losses)
            logs = xp.where(outcome.valid[:, None], logs, memory.last)
            lowest = xp.minimum(memory.lowest, logs)
            drop = xp.where(first[:, None], logs - memory.start, memory.drop)
            share = columns(columns(outcome.units) / total(columns(outcome.units)))
        return MixingMemory(
            start=memory.start,
            last=logs,
            before=memory.last,
            earlier=memory.before,
            lowest=lowest,
            drop=drop,
            share=share,
            seen=outcome.seen,
            fixed=memory.fixed,
            objective=value,
            violation=excess,
            heldout_start=memory.heldout_start,
            period=outcome.period,
            lr=outcome.lr,
            lr_left=outcome.lr_left,
            instance=outcome.instance,
        )

    def encode(self, memory: MixingMemory) -> dict[str, Any]:
        """See `Problem.encode`. Accepts a memory of tensors too, and is differentiable there."""
        if isinstance(memory.last, np.ndarray):
            return observation.encode(memory)
        return observation.encode_tensors(memory)

    def amount(self, memory: MixingMemory) -> np.ndarray:
        """See `ShareProblem.amount`: sequences."""
        return memory.instance.budget

    def prior(self, memory: MixingMemory) -> np.ndarray:
        """See `ShareProblem.prior`: the natural shares."""
        return memory.instance.prior

    def bounds(self, memory: MixingMemory) -> tuple[np.ndarray, np.ndarray]:
        """See `ShareProblem.bounds`: a floor for each, while its data last."""
        inst = memory.instance
        left: np.ndarray = columns((inst.limit - memory.seen) * inst.present)
        return np.minimum(columns(inst.floor), left), left

    def reward(self, before: MixingMemory, after: MixingMemory) -> dict[str, np.ndarray]:
        """Fall of the objective and of the penalty: potential-based, so the undiscounted return is
        the fall over the whole episode.
        """  # noqa: D205
        penalty = after.instance.penalty
        return {
            "objective": before.objective - after.objective,
            "constraint": penalty * (before.violation - after.violation),
        }

    def scores(self, memory: MixingMemory) -> dict[str, np.ndarray]:
        """See `Problem.scores`: the objective with the penalty, in bits per byte."""
        return {
            "objective (bits per byte)": memory.objective
            + memory.instance.penalty * memory.violation
        }

    def status(self, decision: Shares, outcome: MixingOutcome, names: Sequence[str]) -> str:
        """See `Problem.status`: the mixture, and the losses it brought."""
        there = outcome.ready[0]
        split = zip(names, decision.fractions[0], there, strict=False)
        mixture = "  ".join(f"{n} {100 * s:.0f}%" for n, s, present in split if present)
        return f"{mixture}  losses {' '.join(f'{v:.3f}' for v in outcome.losses[0][there])}"
