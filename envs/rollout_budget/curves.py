"""Accuracy against what was spent: one curve a run, three x-axes, areas up to a common limit."""

from __future__ import annotations

from typing import Any

import numpy as np

AXES = ("rollouts", "tokens", "seconds")
LONGER = 1.25
"""Episodes run this much longer than the horizon: cheap policies get further at equal cost."""


def updates(outcomes: list[Any]) -> list[Any]:
    """The start and the outcomes that end an update (rounds in between left out)."""
    return [o for i, o in enumerate(outcomes) if i == 0 or not o.round.any()]


def curves(outcomes: list[Any]) -> dict[str, np.ndarray]:
    """``(batch, updates + 1)`` held-out accuracy, both ratios, and the three axes."""
    kept = updates(outcomes)

    def gather(name: str) -> np.ndarray:
        return np.stack([np.asarray(getattr(o, name), float) for o in kept], 1)

    return {
        "accuracy": gather("heldout"),
        "rollouts": gather("all_rollouts"),
        "tokens": gather("all_tokens"),
        "seconds": gather("all_seconds"),
        "prompt_ratio": gather("prompt_ratio"),
        "rollout_ratio": gather("rollout_ratio"),
    }


def area(x: np.ndarray, y: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Mean of ``y`` over ``x`` in [0, limit], ``(batch,)``; a curve that ends before is held flat."""
    out = np.empty(len(x))
    for i in range(len(x)):
        grid = np.linspace(0, limit[i], 201)
        out[i] = np.trapezoid(np.interp(grid, x[i], y[i]), grid) / limit[i]
    return out


def at(x: np.ndarray, y: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """``y`` where ``x`` reaches ``limit``, ``(batch,)``."""
    return np.array([np.interp(limit[i], x[i], y[i]) for i in range(len(x))])
