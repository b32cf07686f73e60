"""Which processor a real run uses, and with how many threads."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from allocgym.envs.core.errors import AllocgymError


def choose(device: str) -> torch.device:
    """Turn ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"`` into a device that is there.

    Raises:
        AllocgymError: no such kind of device, or none on this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = device.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise AllocgymError(f"device: 'auto', 'cpu' or 'cuda' expected, given {device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise AllocgymError(f"device: {device!r} asked for, but PyTorch finds no GPU here")
    return torch.device(device)


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run with ``count`` threads: sums are added in an order that depends on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
