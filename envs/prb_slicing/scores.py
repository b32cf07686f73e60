"""What a period is worth: TRACTOR's score, the same without idle credit, and the constraint form."""

from __future__ import annotations

import numpy as np

from allocgym.envs.prb_slicing.records import EMBB, MMTC, URLLC, SlicingOutcome, summed

TOLERANCE = 0.001
"""Share of URLLC packets that may be late."""
GRANTS = 0.95
"""Share of the wanted resources an mMTC slice should get."""
PRICES = (5.0, 1.0)
"""Points for each unit of violation: URLLC's late share, mMTC's missing grants."""


def user_scores(outcome: SlicingOutcome) -> tuple[np.ndarray, np.ndarray]:
    """TRACTOR's score of every user, and whether the user had any demand.

    Tsampazi et al. / Groen et al., TRACTOR (arXiv 2312.07896): eMBB
    ``clip((3/2 + rate/4 - buffer)/3, 0, 1)`` with Mbit/s and Mbit, URLLC 1 minus the seconds its
    buffer takes to drain, mMTC granted over requested; an idle mMTC user earns one over the
    slice's blocks.

    Returns:
        ``(batch, n, u)`` scores (0 for padding) and ``(batch, n, u)`` bool.
    """
    inst = outcome.instance
    seconds = inst.period[:, None, None] / 1000
    rate = outcome.served * 8e-6 / seconds
    buffer = outcome.backlog * 8e-6
    embb = np.clip((1.5 + rate / 4 - buffer) / 3, 0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        drain = np.where(rate > 0, 1 - buffer / rate, 0.0)
        urllc = np.where(buffer > 0, np.maximum(drain, 0), 1.0)
        blocks = outcome.prbs[:, :, None]
        share = np.minimum(outcome.granted / outcome.requested, 1)
        mmtc = np.where(outcome.requested > 0, share, 1 / np.maximum(blocks, 1))
        mmtc = np.where(blocks > 0, mmtc, 0.0)
    kind = inst.kind[:, :, None]
    score = np.where(kind == EMBB, embb, np.where(kind == URLLC, urllc, mmtc))
    busy = (outcome.requested > 0) & inst.active
    return score * inst.active, busy


def tractor_and_qos(outcome: SlicingOutcome) -> tuple[np.ndarray, np.ndarray]:
    """Mean over users as published, and mean over users with demand (1 where nobody has any).

    In ``qos`` an eMBB user counts by the share of what it wanted that it got, because the
    published eMBB score of a user who wants little stays near one half however well it is served.
    """
    score, busy = user_scores(outcome)
    users = outcome.instance.active.sum((1, 2))
    tractor = summed(score, 2) / np.maximum(users, 1)
    wanted = np.where(busy, outcome.requested, 1.0)
    share = np.minimum(outcome.granted / wanted, 1.0)
    fair = np.where(outcome.instance.kind[:, :, None] == EMBB, share, score)
    count = busy.sum((1, 2))
    qos = np.where(count > 0, summed(fair * busy, 2) / np.maximum(count, 1), 1.0)
    return tractor, qos


def pooled(values: np.ndarray, outcome: SlicingOutcome, kind: int) -> np.ndarray:
    """Sum ``(batch, n)`` values over the slices of a kind, ``(batch,)``."""
    inst = outcome.instance
    return summed(np.where(inst.present & (inst.kind == kind), values, 0.0))


def sla(outcome: SlicingOutcome, prices: tuple[float, float] = PRICES) -> np.ndarray:
    """Constraint form: eMBB's delivered share, less prices times violations of the others.

    ``served / (served + backlog)`` of all eMBB users together (1 where there was nothing), less
    ``prices[0]`` times URLLC's share of late packets beyond `TOLERANCE`, less ``prices[1]`` times
    what mMTC's granted share lacks to `GRANTS`. Slices of one kind are pooled.

    Returns:
        ``(batch,)``, at most 1.
    """
    served = pooled(summed(outcome.served), outcome, EMBB)
    waits = pooled(summed(outcome.backlog + outcome.dropped), outcome, EMBB)
    delivered = np.where(served + waits > 0, served / np.maximum(served + waits, 1e-9), 1.0)
    packets = pooled(outcome.packets, outcome, URLLC)
    late = np.minimum(pooled(outcome.late, outcome, URLLC) / np.maximum(packets, 1), 1)
    wanted = pooled(summed(outcome.requested), outcome, MMTC)
    got = pooled(summed(outcome.granted), outcome, MMTC) / np.maximum(wanted, 1e-9)
    missing = np.where(wanted > 0, np.maximum(GRANTS - got, 0), 0.0)
    return delivered - prices[0] * np.maximum(late - TOLERANCE, 0) - prices[1] * missing
