"""What an agent sees of a cell: the features and how they are made of a memory."""

from __future__ import annotations

import numpy as np

from allocgym.envs.prb_slicing.records import KINDS, SlicingMemory, summed

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
BOUND = 10.0
"""Observations are clipped to this size."""


def encode_tractor(memory: SlicingMemory) -> np.ndarray:
    """TRACTOR's state: users of each slice and the groups of all but the last, ``(batch, 2 n - 1)``."""
    inst = memory.instance
    parts = [inst.users / 10, memory.units[:, :-1] / inst.budget[:, None]]
    return np.concatenate(parts, 1).astype(np.float32).clip(0, BOUND)


def encode(memory: SlicingMemory) -> dict[str, np.ndarray]:
    """The full observation; see the environment's page."""
    inst = memory.instance
    carrier = inst.blocks[:, None]
    mask = inst.present
    n = mask.sum(1, keepdims=True)

    def log_share(amount: np.ndarray) -> np.ndarray:
        padded = amount + 0.02 * carrier
        whole = summed(padded * mask)[:, None]
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
            summed(memory.need * mask) / inst.blocks,
            summed(memory.average * mask) / inst.blocks,
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
