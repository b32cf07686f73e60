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


MANY = 16
"""More claimants than this are drawn as bands of quantiles, not one by one."""


def stack(axis: Any, shares: np.ndarray, names: list[str]) -> None:
    """Draw shares over periods, ``(periods, n)``, as stacked bars (or bands, see `MANY`)."""
    axis.set(xlabel="period", ylabel="share of the budget (%)")
    x = np.arange(1, len(shares) + 1)
    if len(names) > MANY:
        _bands(axis, x, 100 * shares)
        axis.set_ylabel(f"share of the budget of each of {len(names)} (%)")
        return
    bottom = np.zeros(len(shares))
    for j, name in enumerate(names):
        axis.bar(x, 100 * shares[:, j], bottom=bottom, width=0.9, label=name)
        bottom += 100 * shares[:, j]
    axis.set_ylim(0, 100)


def lines(axis: Any, values: np.ndarray, names: list[str]) -> None:
    """Draw a quantity of each claimant over periods, ``(periods, n)`` (or bands, see `MANY`)."""
    x = np.arange(len(values))
    if len(names) > MANY:
        _bands(axis, x, values)
        return
    for j, name in enumerate(names):
        axis.plot(x, values[:, j], marker=".", label=name)


def _bands(axis: Any, x: np.ndarray, values: np.ndarray) -> None:
    low, q1, middle, q3, high = np.quantile(values, (0, 0.25, 0.5, 0.75, 1), axis=1)
    axis.fill_between(x, low, high, alpha=0.2, label="all")
    axis.fill_between(x, q1, q3, alpha=0.4, label="middle half")
    axis.plot(x, middle, label="median")


def allocation_picture(env: AllocationEnv) -> np.ndarray:
    """Draw what an environment has decided (shares) and earned so far, as an RGB array."""
    if env.returns and not env.history:
        picture, (alone,) = figure(8.0, 3.2, 1)
        alone.plot(np.arange(1, len(env.returns) + 1), np.cumsum(env.returns), marker=".")
        alone.set(xlabel="step", ylabel="return so far")
        picture.canvas.draw()
        return np.asarray(picture.canvas.buffer_rgba())[..., :3].copy()
    picture, (left, right) = figure(8.0, 3.2, 2)
    present = np.asarray(env.outcome.ready[0], bool)
    names = [n for n, there in zip(env.backend.spec.claimants, present, strict=False) if there]
    history = np.asarray(env.history)
    if len(history):
        stack(left, history[:, : len(present)][:, present], names)
        left.legend(fontsize=7, loc="upper right")
    right.plot(np.arange(1, len(env.returns) + 1), np.cumsum(env.returns), marker=".")
    right.set(xlabel="period", ylabel="return so far")
    picture.canvas.draw()
    return np.asarray(picture.canvas.buffer_rgba())[..., :3].copy()
