"""The observation of rollout budgets: features of rows and of the situation, clipped and named."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from allocgym.envs.core.arrays import columns
from allocgym.envs.core.kernels import kernel
from allocgym.envs.rollout_budget.records import RolloutMemory

ROW_FEATURES = (
    "posterior mean",
    "posterior sd",
    "log relative cost",
    "staleness",
    "recent mixed share",
    "signal sqrt(p(1-p))",
    "family accuracy",
    "family accuracy / all",
    "tried this update",
    "right this update",
    "log visits",
    "share of prompts",
)
CONTEXT_FEATURES = (
    "progress",
    "budget left",
    "prompt ratio",
    "rollout ratio",
    "accuracy",
    "accuracy slope",
    "round",
    "log group size",
    "log rows",
)
BOUND = 10.0


@kernel
def _write_rows(
    mean: np.ndarray,
    sd: np.ndarray,
    cost: np.ndarray,
    seen: np.ndarray,
    mixed: np.ndarray,
    variance: np.ndarray,
    visits: np.ndarray,
    family: np.ndarray,
    by_family: np.ndarray,
    accuracy: np.ndarray,
    step: np.ndarray,
    prompts: np.ndarray,
    tried: np.ndarray,
    right: np.ndarray,
    group: np.ndarray,
    turn: np.ndarray,
    out: np.ndarray,
) -> None:
    """Fill ``(batch, n, features)``, in the order of `ROW_FEATURES`; padding is 0."""
    n, batch = mean.shape
    number = mean.dtype.type
    top, half = number(BOUND), number(0.5)
    offered = np.zeros(batch)
    for j in range(n):
        for i in range(batch):
            offered[i] += prompts[j, i]
    for j in range(n):
        for i in range(batch):
            if prompts[j, i] <= 0:
                out[i, j] = 0
                continue
            cell = out[i, j]
            known = by_family[i, family[j, i]]
            cell[0] = mean[j, i]
            cell[1] = sd[j, i] * 4
            cell[2] = min(max(math.log(cost[j, i]), -top), top)
            cell[3] = min(max((step[i] - seen[j, i]) * number(0.1), -top), top)
            cell[4] = mixed[j, i]
            cell[5] = 2 * math.sqrt(variance[j, i])
            cell[6] = known
            cell[7] = known - accuracy[i]
            cell[8] = 0
            cell[9] = 0
            if turn[i] > 0:
                even = group[i] * max(prompts[j, i], 1)
                cell[8] = min(tried[j, i] / even, top)
                cell[9] = right[j, i] / max(tried[j, i], 1)
            cell[10] = min(half * math.log(visits[j, i] + number(1)), top)
            cell[11] = min(prompts[j, i] / max(offered[i], 1) * n, top)


def encode(memory: RolloutMemory, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the observation, ``(batch, ...)`` for each key.

    Args:
        memory: of the episodes.
        rows: what is believed of the rows offered now, as `RolloutBudget.rows` gives it.
    """
    inst = memory.instance
    n, batch = memory.ids.shape[1], len(memory.step)
    accuracy = memory.accuracy
    claimants = np.empty((batch, n, len(ROW_FEATURES)), np.float32)
    _write_rows(
        *(columns(rows[k]) for k in ("mean", "sd", "cost", "seen", "mixed", "variance", "visits")),
        columns(rows["family"]),
        memory.family_accuracy,
        accuracy,
        memory.step,
        columns(memory.prompts),
        columns(memory.tried),
        columns(memory.right),
        inst.group,
        memory.round,
        claimants,
    )
    present = columns(memory.prompts > 0)
    granted = inst.budget * inst.horizon * inst.rounds
    side = np.empty((len(CONTEXT_FEATURES), batch), np.float32)
    context = (
        memory.step / inst.horizon,
        1 - memory.spent / granted,
        memory.prompt_ratio,
        memory.rollout_ratio,
        accuracy,
        memory.slope * 50,
        memory.round / inst.rounds,
        np.log(inst.group),
        np.log(n),
    )
    for k, entry in enumerate(context):
        side[k] = entry
    return {
        "claimants": claimants,
        "context": side.clip(-BOUND, BOUND).T,
        "present": columns(present).view(np.int8),
    }
