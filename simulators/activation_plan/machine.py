"""A training step event by event: a compute stream and two copy engines."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
import simpy

from allocgym.envs.activation_plan.profile import OFFLOAD, RECOMPUTE, Profile


def simulate(profile: Profile, action: np.ndarray, row: int = 0) -> tuple[float, float]:
    """Play one training step in SimPy: a compute stream, a copy engine out and one back.

    Returns:
        Seconds and peak bytes, as `timeline` computes them for a batch.
    """
    env = simpy.Environment()
    out_engine, in_engine = simpy.Resource(env), simpy.Resource(env)
    p, a = profile, [int(v) for v in action[row]]
    n = len(a)
    live = [bool(v) for v in p.present[row]]
    size = [float(v) for v in p.size[row]]
    left = [
        0.0 if not live[i] else float((p.size, p.left_recompute, p.left_offload)[a[i]][row, i])
        for i in range(n)
    ]
    off = [live[i] and a[i] == OFFLOAD for i in range(n)]
    moved = [size[i] - left[i] if off[i] else 0.0 for i in range(n)]
    rate, overlap = float(p.rate[row]), bool(p.overlap[row])
    gone: list[Any] = [None] * n
    back: list[Any] = [None] * n
    held, peak = float(p.base[row]), float(p.base[row])

    def leave(i: int) -> Generator[Any, Any, None]:
        with out_engine.request() as turn:
            yield turn
            yield env.timeout(moved[i] / rate)

    def fetch(i: int) -> Generator[Any, Any, None]:
        with in_engine.request() as turn:
            yield turn
            yield gone[i]
            yield env.timeout(moved[i] / rate)

    def note(before: int, extra: float) -> None:
        nonlocal peak
        late = sum(moved[j] for j in range(before) if off[j] and gone[j].is_alive)
        peak = max(peak, held + late + extra)

    def start(i: int) -> None:
        if off[i]:
            back[i] = env.process(fetch(i))

    def step() -> Generator[Any, Any, None]:
        nonlocal held
        for i in range(n):
            yield env.timeout(float(p.forward[row, i]))
            note(i, size[i] if live[i] else 0.0)
            held += left[i]
            if off[i]:
                gone[i] = env.process(leave(i))
                if not overlap:
                    yield gone[i]
        note(n, float(p.head[row]))
        start(n - 1)
        for i in range(n - 1, -1, -1):
            if back[i] is not None:
                yield back[i]
            ahead = 0.0
            if i and overlap:
                start(i - 1)
                ahead = moved[i - 1]
            held -= left[i]
            note(i, ahead + (float(p.work[row, i, a[i]]) if live[i] else 0.0))
            again = float(p.recompute[row, i]) if live[i] and a[i] == RECOMPUTE else 0.0
            yield env.timeout(again + float(p.backward[row, i]))
            if i and not overlap:
                start(i - 1)

    env.run(until=env.process(step()))
    return float(env.now), peak
