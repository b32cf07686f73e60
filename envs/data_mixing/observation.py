"""What an agent sees of data mixing: the features of a domain and of the episode, and their formulas.

The formulas (`row`, `context`) are arithmetic on numbers or torch tensors: environments fill
observations by compiled loops, training by gradients runs the same lines on tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.envs.core.arrays import Array, columns, namespace, total
from allocgym.envs.core.kernels import formula, kernel
from allocgym.envs.data_mixing.records import MixingInstance, MixingMemory

ROW_FEATURES = (
    "log loss / start",
    "log loss slope, 1 period",
    "log loss slope, 2 periods",
    "log loss / own lowest",
    "log loss / mean of domains",
    "first-period log drop",
    "last share x K",
    "share so far x K",
    "log prior x K",
    "log weight x K",
    "is source",
    "constraint slack",
    "fraction of limit used",
    "epochs seen",
)
CONTEXT_FEATURES = (
    "progress",
    "hidden horizon",
    "learning rate",
    "learning rate left",
    "log K",
    "log effort",
    "noise",
    "worst-domain objective",
    "constrained",
)
# In single precision: a loop over float32 arrays then stays in it.
BOUND, LEVEL, SLOPE, SPREAD = np.float32(10), np.float32(5), np.float32(20), np.float32(2)
UNCONSTRAINED = 1e6


@formula
def row(
    log: Array,
    start: Array,
    before: Array,
    earlier: Array,
    lowest: Array,
    mean: Array,
    drop: Array,
    share: Array,
    count: Array,
    seen: Array,
    pace: Array,
    prior: Array,
    weight: Array,
    source: Array,
    slack: Array,
    per_limit: Array,
    per_epoch: Array,
) -> tuple[Array, ...]:
    """Features of a domain, in the order of `ROW_FEATURES` (``pace``: count / units given so far)."""
    return (
        (log - start) * LEVEL,
        (log - before) * SLOPE,
        (log - earlier) * SLOPE,
        (log - lowest) * SLOPE,
        (log - mean) * SPREAD,
        drop * LEVEL,
        share * count,
        seen * pace,
        prior,
        weight,
        source,
        slack,
        seen * per_limit,
        seen * per_epoch,
    )


@formula
def context(
    progress: Array,
    hidden: Array,
    lr: Array,
    lr_left: Array,
    log_count: Array,
    log_effort: Array,
    noise: Array,
    worst: Array,
    constrained: Array,
) -> tuple[Array, ...]:
    """Features of an episode, in the order of `CONTEXT_FEATURES`."""
    return (
        progress * (1 - hidden),
        hidden,
        lr,
        lr_left * (1 - hidden),
        log_count,
        log_effort,
        noise * 50,
        worst,
        constrained,
    )


def rise(heldout: Array, start: Array, instance: MixingInstance) -> Array:
    """Mean rise of the source domains' loss since the start, ``(n, batch)`` in, ``(batch,)`` out."""
    source = columns(instance.source)
    count = total(source * 1.0)
    return total((heldout - start) * source) / (count + (count == 0))


def slack(memory: MixingMemory) -> Array:
    """How far the sources may still rise, ``(batch,)``, in tenths of a bit; 0 where unconstrained."""
    inst = memory.instance
    constrained = inst.epsilon < UNCONSTRAINED
    if not constrained.any():
        return inst.noise * 0
    xp = namespace(memory.last)
    drift = rise(xp.exp(columns(memory.last)), xp.exp(columns(memory.start)), inst)
    return (inst.epsilon.clip(None, UNCONSTRAINED) - drift) * 10 * constrained


def encode(memory: MixingMemory) -> dict[str, np.ndarray]:
    """Return the observation of a memory of NumPy arrays (see `Problem.encode`)."""
    inst = memory.instance
    batch, n = inst.present.shape
    claimants = np.empty((batch, n, len(ROW_FEATURES)), np.float32)
    side = np.empty((batch, len(CONTEXT_FEATURES)), np.float32)
    count, mean = np.zeros((2, batch), memory.last.dtype)
    _average(columns(inst.present), columns(memory.last), count, mean)
    _write_context(
        memory.period,
        inst.horizon,
        inst.hidden,
        memory.lr,
        memory.lr_left,
        np.log(count),
        np.log(inst.effort),
        inst.noise,
        inst.worst,
        inst.epsilon,
        side,
    )
    _write_rows(
        columns(inst.present),
        columns(memory.last),
        columns(memory.start),
        columns(memory.before),
        columns(memory.earlier),
        columns(memory.lowest),
        mean,
        columns(memory.drop),
        columns(memory.share),
        count,
        columns(memory.seen),
        memory.period,
        inst.budget,
        memory.fixed.transpose(2, 1, 0),
        slack(memory),
        claimants,
    )
    return {"claimants": claimants, "context": side, "present": inst.present.astype(np.int8)}


@kernel
def _average(present: np.ndarray, log: np.ndarray, count: np.ndarray, mean: np.ndarray) -> None:
    """Count the domains present and average their log losses; both start at zero."""
    n, batch = present.shape
    for j in range(n):
        for i in range(batch):
            if present[j, i]:
                count[i] += 1
                mean[i] += log[j, i]
    for i in range(batch):
        mean[i] /= count[i]


@kernel
def _write_context(
    period: np.ndarray,
    horizon: np.ndarray,
    hidden: np.ndarray,
    lr: np.ndarray,
    lr_left: np.ndarray,
    log_count: np.ndarray,
    log_effort: np.ndarray,
    noise: np.ndarray,
    worst: np.ndarray,
    epsilon: np.ndarray,
    out: np.ndarray,
) -> None:
    for i in range(len(out)):
        cell = out[i]
        (cell[0], cell[1], cell[2], cell[3], cell[4], cell[5], cell[6], cell[7], cell[8]) = context(
            period[i] / horizon[i],
            hidden[i],
            lr[i],
            lr_left[i],
            log_count[i],
            log_effort[i],
            noise[i],
            worst[i],
            np.float32(epsilon[i] < UNCONSTRAINED),
        )
    _clip(out.reshape(-1))


@kernel
def _write_rows(
    present: np.ndarray,
    log: np.ndarray,
    start: np.ndarray,
    before: np.ndarray,
    earlier: np.ndarray,
    lowest: np.ndarray,
    mean: np.ndarray,
    drop: np.ndarray,
    share: np.ndarray,
    count: np.ndarray,
    seen: np.ndarray,
    period: np.ndarray,
    budget: np.ndarray,
    fixed: np.ndarray,
    slack: np.ndarray,
    out: np.ndarray,
) -> None:
    n, batch = present.shape
    pace = np.empty_like(count)
    for i in range(batch):
        pace[i] = count[i] / max(period[i] * budget[i], 1)
    for j in range(n):
        for i in range(batch):
            if not present[j, i]:
                out[i, j] = 0
                continue
            cell = out[i, j]
            (
                cell[0],
                cell[1],
                cell[2],
                cell[3],
                cell[4],
                cell[5],
                cell[6],
                cell[7],
                cell[8],
                cell[9],
                cell[10],
                cell[11],
                cell[12],
                cell[13],
            ) = row(
                log[j, i],
                start[j, i],
                before[j, i],
                earlier[j, i],
                lowest[j, i],
                mean[i],
                drop[j, i],
                share[j, i],
                count[i],
                seen[j, i],
                pace[i],
                fixed[0, j, i],
                fixed[1, j, i],
                fixed[2, j, i],
                slack[i],
                fixed[3, j, i],
                fixed[4, j, i],
            )
    _clip(out.reshape(-1))


@kernel
def _clip(flat: np.ndarray) -> None:
    for k in range(len(flat)):
        flat[k] = min(max(flat[k], -BOUND), BOUND)


def encode_tensors(memory: Any) -> dict[str, Any]:
    """Return the observation of a memory of torch tensors; gradients flow through it."""
    inst = memory.instance
    xp = namespace(memory.last)
    mask = columns(inst.present) * 1.0
    count = total(mask)
    log, seen = columns(memory.last), columns(memory.seen)
    given = (memory.period * inst.budget).clip(1, None)
    fixed = memory.fixed.permute(2, 1, 0)
    rows = row(
        log,
        columns(memory.start),
        columns(memory.before),
        columns(memory.earlier),
        columns(memory.lowest),
        total(log * mask) / count,
        columns(memory.drop),
        columns(memory.share),
        count,
        seen,
        count / given,
        fixed[0],
        fixed[1],
        fixed[2],
        slack(memory),
        fixed[3],
        fixed[4],
    )
    side = context(
        memory.period / inst.horizon,
        inst.hidden,
        memory.lr,
        memory.lr_left,
        xp.log(count),
        xp.log(inst.effort),
        inst.noise,
        inst.worst,
        (inst.epsilon < UNCONSTRAINED) * 1.0,
    )
    block = xp.stack([value * mask for value in rows]).clip(-BOUND, BOUND)
    flat = xp.stack([value * xp.ones_like(count) for value in side]).clip(-BOUND, BOUND)
    return {"claimants": block.permute(2, 1, 0), "context": flat.T, "present": inst.present}


@kernel
def digest(
    logs: np.ndarray,
    valid: np.ndarray,
    first: np.ndarray,
    units: np.ndarray,
    last: np.ndarray,
    start: np.ndarray,
    lowest: np.ndarray,
    drop: np.ndarray,
    new_last: np.ndarray,
    new_lowest: np.ndarray,
    new_drop: np.ndarray,
    share: np.ndarray,
) -> None:
    """Fill the log losses that count, lowest ones, first drops and shares, all ``(n, batch)``."""
    n, batch = logs.shape
    number = share.dtype.type
    given = np.zeros(batch, share.dtype)
    for j in range(n):
        for i in range(batch):
            given[i] += number(units[j, i])
    for j in range(n):
        for i in range(batch):
            new_last[j, i] = logs[j, i] if valid[i] else last[j, i]
            new_lowest[j, i] = min(lowest[j, i], new_last[j, i])
            new_drop[j, i] = new_last[j, i] - start[j, i] if first[i] else drop[j, i]
            share[j, i] = number(units[j, i]) / given[i]
