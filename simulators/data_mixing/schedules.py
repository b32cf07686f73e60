"""Learning-rate schedules, averaged over the periods of a run."""

from __future__ import annotations

import numpy as np

from allocgym.envs.core.errors import unknown

SCHEDULES = ("constant", "cosine", "wsd")


def period_rates(
    schedule: str, horizon: int, warmup: float = 0.05, final: float = 0.1
) -> np.ndarray:
    """Mean learning rate of each period, as a fraction of the peak.

    Args:
        schedule: ``"constant"``, ``"cosine"`` or ``"wsd"`` (linear decay over the last fifth), each
            after a linear warm-up.
        horizon: number of periods.
        warmup: fraction of the run spent warming up.
        final: rate at the end of ``cosine`` and ``wsd``.

    Returns:
        ``(horizon,)`` float64 in (0, 1].
    """
    if schedule not in SCHEDULES:
        raise unknown("schedule", schedule, SCHEDULES)
    fine = 50
    x = (np.arange(horizon * fine) + 0.5) / (horizon * fine)
    after = (x - warmup) / (1 - warmup)
    shape = {
        "constant": np.ones_like(x),
        "cosine": final + (1 - final) * 0.5 * (1 + np.cos(np.pi * np.clip(after, 0, 1))),
        "wsd": 1 - (1 - final) * np.clip((after - 0.8) / 0.2, 0, 1),
    }[schedule]
    ramp = np.minimum(1.0, x / warmup) if warmup > 0 else np.ones_like(x)
    return (shape * ramp).reshape(horizon, fine).mean(1)
