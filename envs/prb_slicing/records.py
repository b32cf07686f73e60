"""What radio slicing exchanges: the instance, the KPIs of a period, the memory of an episode.

Shapes: ``batch`` cells, ``n`` rows for slices (those beyond an instance's own are padding), ``u``
rows for the users of a slice (likewise). Bytes are IP bytes, times milliseconds. Work is counted
in block-milliseconds: bytes over what one resource block carries in a millisecond.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.contracts import Outcome
from allocgym.envs.core.record import Record

KINDS = ("mmtc", "urllc", "embb")
"""Kinds of slices; their order is TRACTOR's numbering."""
MMTC, URLLC, EMBB = 0, 1, 2


def summed(values: np.ndarray, axes: int = 1) -> np.ndarray:
    """Sum numbers over the last axes, in their order.

    NumPy chooses the order of a sum by how an array lies in memory, and so by the batch; a cell alone
    must equal the same cell in a batch bit for bit.
    """
    flat = values.reshape(*values.shape[: values.ndim - axes], -1)
    if flat.shape[-1] >= len(flat):
        return np.add.accumulate(flat, axis=-1).take(-1, axis=-1)
    # The same sum column by column: faster for many rows.
    out = flat[..., 0].copy()
    for k in range(1, flat.shape[-1]):
        out += flat[..., k]
    return out


@dataclasses.dataclass(eq=False)
class SlicingInstance(Record):
    """What is fixed for an episode and known to everybody.

    Attributes:
        present: ``(batch, n)`` bool, rows that are slices.
        kind: ``(batch, n)`` int64, index into `KINDS`.
        users: ``(batch, n)`` int64, users of each slice.
        active: ``(batch, n, u)`` bool, rows that are users.
        target: ``(batch, n)`` delay target in ms.
        budget: ``(batch,)`` int64 resource block groups.
        blocks: ``(batch,)`` resource blocks of the carrier.
        horizon: ``(batch,)`` int64 periods in the episode.
        period: ``(batch,)`` ms between decisions.
    """

    present: np.ndarray
    kind: np.ndarray
    users: np.ndarray
    active: np.ndarray
    target: np.ndarray
    budget: np.ndarray
    blocks: np.ndarray
    horizon: np.ndarray
    period: np.ndarray


@dataclasses.dataclass(eq=False)
class SlicingOutcome(Outcome):
    """KPIs of the last period.

    Attributes:
        units: ``(batch, n)`` int64, groups each slice had.
        prbs: ``(batch, n)`` int64, resource blocks each slice had.
        arrived: ``(batch, n, u)`` bytes that came for each user.
        served: ``(batch, n, u)`` bytes delivered.
        dropped: ``(batch, n, u)`` bytes lost to a full queue.
        backlog: ``(batch, n, u)`` bytes waiting at the end.
        work: ``(batch, n, u)`` block-milliseconds that came.
        granted: ``(batch, n, u)`` block-milliseconds used.
        requested: ``(batch, n, u)`` block-milliseconds wanted: used, plus those that still wait.
        cqi: ``(batch, n, u)`` channel quality, 1 to 15.
        packets: ``(batch, n)`` packets that came.
        late: ``(batch, n)`` packets delivered later than the slice's target, or lost. Event-driven
            back ends count them when that happens, so a period may have more than came in it.
        late50: ``(batch, n)`` the same for 50 ms.
        delay: ``(batch, n)`` mean delay of the period's packets in ms (0 without packets).
        period: ``(batch,)`` int64 number of the period, 0 after a reset.
        instance: what is fixed.
    """

    units: np.ndarray
    prbs: np.ndarray
    arrived: np.ndarray
    served: np.ndarray
    dropped: np.ndarray
    backlog: np.ndarray
    work: np.ndarray
    granted: np.ndarray
    requested: np.ndarray
    cqi: np.ndarray
    packets: np.ndarray
    late: np.ndarray
    late50: np.ndarray
    delay: np.ndarray
    period: np.ndarray
    instance: SlicingInstance

    @property
    def throughput(self) -> np.ndarray:
        """``(batch, n)`` Mbit/s delivered in the period."""
        return summed(self.served) * 8e-3 / self.instance.period[:, None]


@dataclasses.dataclass(eq=False)
class SlicingTotals(Record):
    """Sums over the periods of an episode so far, ``(batch,)`` each.

    Attributes:
        sla, tractor, qos: of the periods' scores.
        packets: URLLC packets.
        late: of them, late ones.
        served: bytes delivered to eMBB users.
    """

    sla: np.ndarray
    tractor: np.ndarray
    qos: np.ndarray
    packets: np.ndarray
    late: np.ndarray
    served: np.ndarray


@dataclasses.dataclass(eq=False)
class SlicingMemory(Record):
    """What the encoder and the rules need of the past, fixed in size.

    Attributes:
        units: ``(batch, n)`` int64, the split in force.
        need: ``(batch, n)`` resource blocks each slice could have used: arrivals of the last
            period plus its backlog, over one period.
        arrivals: ``(batch, n)`` resource blocks the last period's arrivals ask for.
        average: ``(batch, n)`` their exponential average (weight 0.2).
        peak: ``(batch, n)`` their decaying maximum (factor 0.9).
        waiting: ``(batch, n)`` resource blocks over one period that wait.
        ratio: ``(batch, n)`` granted over requested (1 where nothing was wanted).
        used: ``(batch, n)`` granted over what the slice had.
        late: ``(batch, n)`` share of the period's packets that were late.
        delay: ``(batch, n)`` mean delay in ms.
        cqi: ``(batch, n)`` mean CQI of the slice's users.
        tractor: ``(batch,)`` score of the period as TRACTOR defines it.
        qos: ``(batch,)`` the same without credit for idle users.
        sla: ``(batch,)`` constraint form.
        moved: ``(batch,)`` groups that changed hands.
        period: ``(batch,)`` int64.
        totals: of the episode so far.
        instance: what is fixed.
    """

    units: np.ndarray
    need: np.ndarray
    arrivals: np.ndarray
    average: np.ndarray
    peak: np.ndarray
    waiting: np.ndarray
    ratio: np.ndarray
    used: np.ndarray
    late: np.ndarray
    delay: np.ndarray
    cqi: np.ndarray
    tractor: np.ndarray
    qos: np.ndarray
    sla: np.ndarray
    moved: np.ndarray
    period: np.ndarray
    totals: SlicingTotals
    instance: SlicingInstance

    @property
    def objective(self) -> np.ndarray:
        """``(batch,)`` mean score of the periods so far in constraint form."""
        return self.totals.sla / np.maximum(self.period, 1)
