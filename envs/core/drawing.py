"""Pictures of an allocation, drawn off screen (matplotlib is imported only here)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from allocgym.envs.core.errors import missing_extra

if TYPE_CHECKING:
    from allocgym.envs.core.environment import AllocationEnv


def figure(width: float = 7.0, height: float = 3.2, columns: int = 1) -> tuple[Any, Any]:
    """Make an off-screen figure with one row of axes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plots") from error
    picture = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(picture)
    axes = picture.subplots(1, columns, squeeze=False)[0]
    return picture, axes


def png(picture: Any) -> bytes:
    """Render a figure to PNG bytes."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def stack(axis: Any, shares: np.ndarray, names: list[str]) -> None:
    """Draw shares over periods as stacked bars, ``(periods, n)``."""
    bottom = np.zeros(len(shares))
    x = np.arange(1, len(shares) + 1)
    for j, name in enumerate(names):
        axis.bar(x, 100 * shares[:, j], bottom=bottom, width=0.9, label=name)
        bottom += 100 * shares[:, j]
    axis.set(xlabel="period", ylabel="share of the budget (%)", ylim=(0, 100))


def allocation_picture(env: AllocationEnv) -> np.ndarray:
    """Draw what an environment has decided and earned so far, as an RGB array."""
    picture, (left, right) = figure(8.0, 3.2, 2)
    present = np.asarray(env.outcome.ready[0], bool)
    names = [n for n, there in zip(env.backend.spec.claimants, present, strict=False) if there]
    history = np.asarray(env.history)
    if len(history):
        stack(left, history[:, : len(present)][:, present], names)
        left.legend(fontsize=7, loc="upper right")
    right.plot(np.arange(1, len(env.returns) + 1), np.cumsum(env.returns), marker=".")
    right.set(xlabel="period", ylabel="return so far (loss units)")
    picture.canvas.draw()
    return np.asarray(picture.canvas.buffer_rgba())[..., :3].copy()
