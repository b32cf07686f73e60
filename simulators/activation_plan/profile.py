"""Profiles of training steps: fitted to real runs, and analytic ones."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

from allocgym.envs.core.errors import unknown
from allocgym.simulators.activation_plan.scenario import RECORDED, ActivationScenario


@functools.cache
def recorded(model: str) -> dict[str, Any]:
    """A profile fitted to real runs of a model on a CPU (see its ``fit`` for the errors)."""
    if model not in RECORDED:
        raise unknown("model", model, RECORDED)
    file = resources.files(__package__) / "fits" / f"{model}.json"
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def gpt_step(
    d: int,
    layers: int,
    rows: int,
    batch: int,
    link: float = 50e9,
    compute: float = 4e14,
    memory: float = 3.35e12,
    overlap: bool = True,
) -> dict[str, Any]:
    """An analytic profile of a GPT training step in bf16 on one accelerator.

    Roofline seconds, ``max(flops / compute, bytes / memory)``; the backward pass takes twice the
    forward pass. Nominal figures: 400 TFLOP/s reached, 3.35 TB/s (H100 SXM), a 50 GB/s link.

    Args:
        d: width.
        layers: blocks.
        rows: tokens a sequence.
        batch: sequences.
        link: bytes a second to host memory, each way.
        compute: FLOP/s reached.
        memory: bytes a second of the device's memory.
        overlap: transfers run beside computation.
    """
    t = rows * batch
    unit = 2.0 * t * d
    attention = {
        "size": 6 * unit,
        "input": unit,
        "seconds": max(
            (8.0 * t * d * d + 4.0 * batch * rows * rows * d) / compute, 9 * unit / memory
        ),
    }
    feed = {
        "size": 10 * unit,
        "input": unit,
        "seconds": max(16.0 * t * d * d / compute, 12 * unit / memory),
    }
    groups = [g for _ in range(layers) for g in (attention, feed)]
    forward = [g["seconds"] for g in groups]
    return {
        "model": f"gpt-d{d}-L{layers}-T{rows}-B{batch}",
        "size": [g["size"] for g in groups],
        "left_recompute": [g["input"] for g in groups],
        "left_offload": [0.0] * len(groups),
        "forward": forward,
        "backward": [2 * f for f in forward],
        "recompute": forward,
        "work": [[g["size"] + 5 * unit] * 3 for g in groups],
        "base": 16.0 * 12 * layers * d * d,
        "head": 4.0 * t * 32000,
        "rate": link,
        "overlap": overlap,
    }


def profiles(scenario: ActivationScenario) -> list[dict[str, Any]]:
    """The training steps of a scenario, as `profile_from_json` reads them."""
    found = []
    for name in scenario.steps:
        if name in RECORDED:
            found.append(recorded(name))
            continue
        d, layers, rows, batch = map(int, name.split("-"))
        found += [
            gpt_step(d, layers, rows, batch, link, overlap=overlap)
            for link in scenario.links
            for overlap in scenario.overlap
        ]
    return found
