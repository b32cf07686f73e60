"""The fluid model where slices are coupled: borrowed blocks, or no slicing at all."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.envs.core.arrays import total
from allocgym.simulators.prb_slicing import fluid
from allocgym.simulators.prb_slicing.episodes import Episodes
from allocgym.simulators.prb_slicing.period import Period


def play_joint(episodes: Episodes, p: Period, dtype: Any) -> None:
    """Play a period millisecond by millisecond, every user with a queue of its own.

    With ``pool`` all users share all blocks max-min; with ``borrow`` each slice has its own first
    and what is left goes max-min to who still waits.
    """
    s, out, carries = episodes.scenario, p.out, p.carries
    n, u, batch = carries.shape
    steps = int(s.period)
    per_ms, counts = [], []
    for i in range(len(s.slices)):
        volume, number = episodes.arrivals(p.state.workload, i, p.state.period)
        stretch = steps // volume.shape[2]
        per_ms.append(np.repeat(volume.astype(dtype) / stretch, stretch, 2))
        # Packets of a coarse bin are counted once, at its end.
        spread = np.zeros((u, batch, steps), dtype)
        spread[:, :, stretch - 1 :: stretch] = number
        counts.append(spread)
    inverse = np.zeros_like(carries)
    np.divide(1, carries, out=inverse, where=carries > 0)
    work = (p.state.played.backlog * inverse).astype(dtype)
    most = (s.queue * inverse).astype(dtype)
    every = np.full(batch, float(s.carrier.blocks), dtype)
    granted, lost = np.zeros_like(work), np.zeros_like(work)
    k = len(s.slices)
    first = np.empty((k, u, batch, steps), dtype)
    last, gone = np.empty_like(first), np.empty_like(first)
    for t in range(steps):
        new = np.zeros_like(work)
        for i, volume in enumerate(per_ms):
            new[i] = volume[:, :, t] * inverse[i]
        work += new
        if s.pool:
            given = fluid.water_fill(work.reshape(n * u, batch), every).reshape(n, u, batch)
        else:
            given = np.stack(
                [fluid.water_fill(work[i], p.blocks[i].astype(dtype)) for i in range(n)]
            )
            spare = every - total(given.reshape(n * u, batch))
            rest = (work - given).reshape(n * u, batch)
            given += fluid.water_fill(rest, np.maximum(spare, 0)).reshape(n, u, batch)
        work -= given
        over = np.maximum(work - most, 0)
        work -= over
        granted += given
        lost += over
        share = np.minimum(over / np.maximum(new, 1e-9), 1)
        rate = np.maximum(given, 1e-3)
        last[..., t] = (work / rate)[:k]
        first[..., t] = (np.maximum(work - new, 0) / rate)[:k]
        gone[..., t] = share[:k]
    first += 1.5 + s.fixed
    last += 1.5 + s.fixed
    for i, count in enumerate(counts):
        rows = [
            x.transpose(1, 0, 2).reshape(batch, -1) for x in (first[i], last[i], count, gone[i])
        ]
        packets, missing = rows[2].sum(1), (rows[2] * rows[3]).sum(1)
        kept = rows[2] * (1 - rows[3])
        out.packets[i] = packets
        out.late[i] = missing + fluid.late_packets(rows[0], rows[1], kept, s.target(i))
        out.late50[i] = missing + fluid.late_packets(rows[0], rows[1], kept, 50.0)
        middle = 0.5 * ((rows[0] + rows[1]) * kept).sum(1)
        out.delay[i] = middle / np.maximum(packets, 1)
        out.arrived[i] = per_ms[i].sum(2)
        if p.counts is not None:
            p.counts[:, i] += fluid.histogram(rows[0], rows[1], kept)
    out.work[:] = out.arrived * inverse
    out.granted[:] = granted
    out.served[:] = granted * carries
    out.dropped[:] = lost * carries
