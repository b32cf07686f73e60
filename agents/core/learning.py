"""What a training with torch stands on, kept and put back: parameters, optimisers, random numbers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def held(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state of networks, optimisers and schedules, and of this process's generators.

    Stable-Baselines3 and CMA-ES draw from numpy's global generator.

    Args:
        parts: by name; each has ``state_dict()``.
    """
    return {
        "parts": {name: _plain(part.state_dict()) for name, part in parts.items()},
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),  # noqa: NPY002
        "python": random.getstate(),
    }


def restore(parts: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Put back what `held` returned; further entries of ``state`` are the caller's."""
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    torch.set_rng_state(state["torch"])
    np.random.set_state(state["numpy"])  # noqa: NPY002
    random.setstate(state["python"])


def _plain(value: Any) -> Any:
    """Turn ordered dictionaries into plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    return [_plain(v) for v in value] if type(value) is list else value
