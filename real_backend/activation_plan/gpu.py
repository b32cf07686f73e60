"""What a GPU's link to pinned host memory carries, by size (not run where this was written)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from allocgym.envs.core.errors import AllocgymError

SIZES = tuple(4**k * 1024 for k in range(10))
"""1 KiB to 256 MiB."""


def available() -> bool:
    """A CUDA device can be used."""
    return torch.cuda.is_available()


def pinned_rates(sizes: Sequence[int] = SIZES, repeats: int = 20) -> list[dict[str, float]]:
    """Time copies between the device and a pinned buffer, both ways, by CUDA events.

    Args:
        sizes: bytes.
        repeats: copies timed together, after as many that are not.

    Returns:
        Per size ``bytes``, ``to_device`` and ``to_host`` in bytes a second.
    """
    if not available():
        raise AllocgymError("gpu: no CUDA device is at hand")
    rows = []
    stream = torch.cuda.Stream()
    for size in sizes:
        host = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        device = torch.empty(size, dtype=torch.uint8, device="cuda")
        row = {"bytes": float(size)}
        for name, target, source in (("to_device", device, host), ("to_host", host, device)):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            with torch.cuda.stream(stream):
                for k in range(2 * repeats):
                    if k == repeats:
                        begin.record(stream)
                    target.copy_(source, non_blocking=True)
                end.record(stream)
            end.synchronize()
            row[name] = size * repeats / (begin.elapsed_time(end) / 1e3)
        rows.append(row)
    return rows
