"""A profile of a real training step: bytes counted, seconds and work space fitted to measured plans."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from allocgym.envs.activation_plan.profile import profile_from_json, timeline
from allocgym.real_backend.activation_plan.measure import measure
from allocgym.real_backend.core.shape import MODELS

CLASSES = 2
"""Operator classes of a block: attention, feed-forward."""


def pilot_plans(groups: int, extra: int = 9, seed: int = 1) -> list[list[int]]:
    """Plans to calibrate on: all recomputed, all offloaded, and random ones."""
    rng = np.random.default_rng(seed)
    plans = [[1] * groups, [2] * groups]
    while len(plans) < extra + 2:
        odds = rng.dirichlet(np.ones(3))
        plans.append(rng.choice(3, groups, p=odds).tolist())
    return plans


def calibrate(
    model: str, repeats: int = 3, rate: float = 2e9, device: str = "cpu", extra: int = 9
) -> dict[str, Any]:
    """Measure pilot plans of a model and fit its profile.

    Sizes are counted, not fitted. Fitted to the peaks: the bytes of the loss and, per operator class
    and action, the bytes while a group's backward pass runs. Fitted to the seconds (non-negative
    least squares): recompute time per class and the rate of the slow tier.

    Returns:
        The profile as `profile_from_json` reads it, with the errors of the fit.
    """
    groups = 2 * MODELS[model]["layers"]
    got = measure(model, pilot_plans(groups, extra), repeats, rate, device)
    return fit(got, model, device)


def fit(got: dict[str, Any], model: str, device: str) -> dict[str, Any]:
    """Fit a profile to what `measure` returned."""
    sizes = np.array([g["size"] for g in got["groups"]], float)
    entered = np.array([g["input"] for g in got["groups"]], float)
    small = np.array([g["small"] for g in got["groups"]], float)
    n = len(sizes)
    kind = np.arange(n) % CLASSES
    plans = np.array([p["plan"] for p in got["plans"]])
    each = np.zeros(len(plans), np.int64)
    peaks = np.array([p["peak"] for p in got["plans"]], float)
    seconds = np.array([p["seconds"] for p in got["plans"]])
    forward = np.array(got["forward"])
    keep = float(seconds[0])
    rows = [[(p[kind == c] == 1).sum() for c in range(CLASSES)] for p in plans]
    moved = np.array([p["moved"] for p in got["plans"]], float)
    design = np.column_stack([rows, moved / 1e6, np.ones(len(plans))])
    cost, _ = nnls(design, seconds)
    keep = float(cost[-1]) or keep
    recompute = np.maximum(cost[:CLASSES], 1e-9)[kind]
    rate = 1e6 / max(float(cost[CLASSES]), 1e-9)
    rest = max(keep - forward.sum(), 1e-9)
    profile: dict[str, Any] = {
        "model": model,
        "device": device,
        "machine": got["machine"],
        "size": sizes.tolist(),
        "left_recompute": entered.tolist(),
        "left_offload": small.tolist(),
        "forward": forward.tolist(),
        "backward": (forward / forward.sum() * rest).tolist(),
        "recompute": recompute.tolist(),
        "base": 0.0,
        "head": 0.0,
        "rate": rate,
        "overlap": device == "cuda",
    }

    def put(theta: np.ndarray) -> dict[str, Any]:
        work = theta[1:].reshape(CLASSES, 3)[kind]
        return {**profile, "head": float(theta[0]), "work": work.tolist()}

    def errors(theta: np.ndarray) -> np.ndarray:
        p = profile_from_json(put(np.abs(theta) * 1e6), n)
        return np.asarray(timeline(p.rows(each), plans)[1] / peaks - 1)

    top = np.array([sizes[kind == c].max() for c in range(CLASSES)])
    start = np.concatenate([[0.1 * sizes.sum()], np.repeat(1.3 * top, 3)]) / 1e6
    found = least_squares(errors, start, diff_step=1e-3)
    profile = put(np.abs(found.x) * 1e6)
    residual = errors(found.x)
    p = profile_from_json(profile, n)
    predicted = timeline(p.rows(each), plans)[0]
    profile["fit"] = {
        "plans": len(plans),
        "peak_error_max": float(np.abs(residual).max()),
        "peak_error_mean": float(np.abs(residual).mean()),
        "seconds_error_mean": float(np.abs(predicted / seconds - 1).mean()),
    }
    return profile
