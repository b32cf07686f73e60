"""Instances to pack: generated with a known packing, public, or of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError, FileNeededError, unknown
from allocgym.envs.packing.buffer import Buffers, from_csv
from allocgym.simulators.core import public_data
from allocgym.simulators.packing.scenario import PackingScenario

INPUTS = "ABCDEFGHIJK"
"""MiniMalloc's."""
CAPACITY = 2**20


def known(scenario: PackingScenario) -> list[Buffers]:
    """The instances that a scenario draws from; none where it generates them.

    Raises:
        AllocgymError: a file is missing or not an instance.
    """
    if scenario.source == "minimalloc":
        return [public(name) for name in INPUTS]
    if scenario.source != "file":
        return []
    if scenario.file is None or scenario.capacity is None:
        raise FileNeededError("file: a CSV file and a capacity expected")
    path = Path(scenario.file)
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise AllocgymError(f"file: {path} cannot be read ({error})") from error
    return [from_csv(text, path.stem, scenario.capacity)]


def cut(seed: int, buffers: int = 48, capacity: int = CAPACITY, span: int = 1024) -> Buffers:
    """Cut the rectangle time x memory into buffers: they fill it without a gap.

    The piece of largest area is cut in two, across time or memory, until there are enough. Pieces
    keep the offset they are cut at, a packing whose height is the capacity and the peak load.

    Args:
        seed: of the cuts.
        buffers: pieces.
        capacity: bytes, a multiple of 1024 (the granule).
        span: of time.
    """
    rng = randomness.generator(seed, "packing")
    granule = 1024
    pieces = [(0, span, 0, capacity // granule)]
    while len(pieces) < buffers:
        at = max(range(len(pieces)), key=lambda i: _area(pieces[i]) * (0.5 + rng.random()))
        a, b, low, high = pieces.pop(at)
        wide, tall = b - a, high - low
        if wide < 2 and tall < 2:
            raise AllocgymError(f"buffers: at most {len(pieces) + 1} fit, given {buffers}")
        # Real buffers are long and thin or short and thick: both ways of cutting are common.
        across = rng.random() < 0.5 if wide > 1 and tall > 1 else wide > 1
        share = rng.uniform(0.15, 0.85)
        if across:
            m = a + min(max(round(wide * share), 1), wide - 1)
            pieces += [(a, m, low, high), (m, b, low, high)]
        else:
            m = low + min(max(round(tall * share), 1), tall - 1)
            pieces += [(a, b, low, m), (a, b, m, high)]
    table = np.array(pieces, np.int64)[rng.permutation(len(pieces))]
    a, b, low, high = table.T
    return Buffers(f"cut-{seed}-{buffers}", a, b, (high - low) * granule, capacity, low * granule)


def _area(piece: tuple[int, int, int, int]) -> int:
    a, b, low, high = piece
    return (b - a) * (high - low)


def generated(scenario: str, seed: int, buffers: int = 48) -> Buffers:
    """An instance of a generated scenario."""
    if scenario == "stacked":
        rng = randomness.generator(seed, "stacked")
        size = rng.integers(1, 64, buffers) * 1024
        whole = int(size.sum())
        known = size.cumsum() - size
        zero = np.zeros(buffers, np.int64)
        return Buffers(f"stacked-{seed}", zero, zero + 1, size, whole, known)
    made = cut(seed, buffers)
    if scenario == "tight":
        return made
    keep = np.sort(
        randomness.generator(seed, "slack").permutation(buffers)[: max(buffers * 5 // 6, 1)]
    )
    assert made.known is not None
    return Buffers(
        f"slack-{seed}",
        made.lower[keep],
        made.upper[keep],
        made.size[keep],
        made.capacity,
        made.known[keep],
    )


def public(name: str) -> Buffers:
    """One of MiniMalloc's inputs (A to K)."""
    if name not in INPUTS:
        raise unknown("input", name, list(INPUTS))
    file = public_data.path(f"memory/minimalloc/{name}.{CAPACITY}.csv")
    return from_csv(file.read_text(), name, CAPACITY)
