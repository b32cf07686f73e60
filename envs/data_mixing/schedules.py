"""Learning-rate schedules: the same ones in a simulator and on a real run."""

from __future__ import annotations

import functools

import numpy as np

from allocgym.envs.core.errors import unknown

SCHEDULES = ("constant", "cosine", "wsd")
FLAT = "flat"
"""The peak rate at every step, without a warm-up: all tokens of a run count alike."""
FINAL_RATE = 0.1
"""Rate at the end of ``cosine`` and ``wsd``, as a fraction of the peak."""


@functools.cache
def step_rates(schedule: str, steps: int, warmup: float = 0.05) -> np.ndarray:
    """Learning rate of each step as a fraction of the peak.

    Args:
        schedule: ``"constant"``, ``"cosine"`` or ``"wsd"`` (linear decay over the last fifth), each
            after a linear warm-up; or ``"flat"``.
        steps: number of optimiser steps.
        warmup: fraction of the run spent warming up.

    Returns:
        ``(steps,)`` float64 in (0, 1], read-only.
    """
    if schedule not in (*SCHEDULES, FLAT):
        raise unknown("schedule", schedule, (*SCHEDULES, FLAT))
    x = (np.arange(steps) + 0.5) / steps
    after = np.clip((x - warmup) / (1 - warmup), 0, 1)
    if schedule == FLAT:
        warmup = 0.0
    shape = {
        FLAT: np.ones(steps),
        "constant": np.ones(steps),
        "cosine": FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + np.cos(np.pi * after)),
        "wsd": 1 - (1 - FINAL_RATE) * np.clip((after - 0.8) / 0.2, 0, 1),
    }[schedule]
    rates: np.ndarray = shape * (np.minimum(1.0, x / warmup) if warmup > 0 else 1.0)
    rates.flags.writeable = False
    return rates


def period_rates(schedule: str, horizon: int) -> np.ndarray:
    """Mean learning rate of each of ``horizon`` periods, ``(horizon,)`` in (0, 1]."""
    return step_rates(schedule, 50 * horizon).reshape(horizon, 50).mean(1)
