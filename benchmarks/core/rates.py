"""How speed is measured: work per CPU-second."""

from __future__ import annotations

import time
from collections.abc import Callable


def rate(step: Callable[[], int], seconds: float) -> float:
    """Steps per CPU-second of the fastest of five stretches (other work slows some of them).

    Args:
        step: does some of the work and returns how many steps that was; called once before.
        seconds: CPU-seconds of all stretches together.
    """
    step()
    best = 0.0
    for _ in range(5):
        begun, steps = time.process_time(), 0
        while (used := time.process_time() - begun) < seconds / 5:
            steps += step()
        best = max(best, steps / used)
    return best
