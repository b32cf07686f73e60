"""A training step of a small GPT with a plan executed: checkpointing, offloading, both measured."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import weakref
from collections.abc import Sequence
from typing import Any

import torch
import torch.multiprocessing.reductions
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from allocgym.real_backend.core.decoder import Decoder

LEAST = 65536
"""Tensors under this many bytes are not moved."""


class SlowTier:
    """Where offloaded tensors go: a file on CPU, a preallocated pinned pool on CUDA.

    Args:
        device: of the model.
        rate: bytes a second on CPU; transfers that the file system does faster are paced by sleeping.
        capacity: bytes of the pinned pool (CUDA).
    """

    def __init__(self, device: torch.device, rate: float, capacity: int = 0) -> None:
        self.device, self.rate = device, rate
        self.paced = 0.0
        self.moved = 0
        self._end = 0
        if device.type == "cuda":  # not run on the machine this was written on
            self.stream: Any = torch.cuda.Stream(device)
            self.pool = torch.empty(max(capacity, 1), dtype=torch.uint8, pin_memory=True)
        else:
            self.file = tempfile.TemporaryFile()
            weakref.finalize(self, self.file.close)

    def restart(self) -> None:
        """Forget what is stored; the space is used again."""
        self._end, self.paced, self.moved = 0, 0.0, 0

    def _pace(self, size: int, begun: float) -> None:
        rest = size / self.rate - (time.perf_counter() - begun)
        self.moved += size
        if rest > 0:
            time.sleep(rest)
            self.paced += rest

    def put(self, x: Tensor) -> tuple[Any, ...]:
        """Store a tensor; return what `get` needs."""
        x = x.contiguous()
        size, at = x.numel() * x.element_size(), self._end
        self._end += -(-size // 4096) * 4096
        if self.device.type == "cuda":
            if self._end > self.pool.numel():
                raise RuntimeError(
                    f"pinned pool: {self._end} bytes needed, {self.pool.numel()} there"
                )
            flat = x.view(-1).view(torch.uint8)
            target = self.pool[at : at + size]
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                target.copy_(flat, non_blocking=True)
                flat.record_stream(self.stream)
            return at, size, x.shape, x.dtype
        begun = time.perf_counter()
        raw: Any = x.detach().view(-1).view(torch.uint8).numpy()
        view = memoryview(raw)
        done = 0
        while done < size:
            done += os.pwrite(self.file.fileno(), view[done:], at + done)
        self._pace(size, begun)
        return at, size, x.shape, x.dtype

    def get(self, key: tuple[Any, ...]) -> Tensor:
        """Bring a tensor back."""
        at, size, shape, dtype = key
        if self.device.type == "cuda":
            flat = torch.empty(size, dtype=torch.uint8, device=self.device)
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                flat.copy_(self.pool[at : at + size], non_blocking=True)
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            return flat.view(dtype).view(shape)
        begun = time.perf_counter()
        flat = torch.empty(size, dtype=torch.uint8)
        raw: Any = flat.numpy()
        view = memoryview(raw)
        done = 0
        while done < size:
            done += os.preadv(self.file.fileno(), [view[done:]], at + done)
        self._pace(size, begun)
        return flat.view(dtype).view(shape)


class Executor:
    """Runs a training step with a plan.

    Args:
        model: what is trained.
        plan: keep (0), recompute (1) or offload (2) per group.
        tier: the slow tier.
    """

    def __init__(self, model: Decoder, plan: Sequence[int], tier: SlowTier) -> None:
        self.model, self.plan, self.tier = model, list(plan), tier
        self._own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def _hooks(self, entered: Tensor) -> contextlib.AbstractContextManager[Any]:
        # A storage is stored once. It is recognised by its storage object, held weakly: addresses
        # are used again once a tensor is freed.
        stored: list[tuple[Any, dict[str, Any]]] = []

        def same(x: Tensor) -> dict[str, Any] | None:
            pointer = x.untyped_storage()._cdata
            for reference, entry in stored:
                if not reference.expired() and reference.cdata == pointer:
                    return entry
            return None

        def pack(x: Tensor) -> Any:
            storage = x.untyped_storage()
            if (
                isinstance(x, nn.Parameter)
                or storage.data_ptr() in self._own
                or storage.nbytes() < LEAST
            ):
                return x
            entry = same(x)
            if entry is None:
                flat = torch.empty(0, dtype=torch.uint8, device=x.device).set_(storage)
                entry = {"key": self.tier.put(flat), "back": None, "users": 0}
                stored.append((torch.multiprocessing.reductions.StorageWeakRef(storage), entry))
            entry["users"] += 1
            return entry, x.dtype, tuple(x.shape), tuple(x.stride()), x.storage_offset()

        def unpack(packed: Any) -> Tensor:
            if isinstance(packed, Tensor):
                return packed
            entry, dtype, shape, stride, offset = packed
            if entry["back"] is None:
                entry["back"] = self.tier.get(entry["key"])
            flat = entry["back"]
            entry["users"] -= 1
            if entry["users"] == 0:
                entry["back"] = None
            out = torch.empty(0, dtype=dtype, device=flat.device)
            return out.set_(flat.untyped_storage(), offset, shape, stride)

        return torch.autograd.graph.saved_tensors_hooks(pack, unpack)

    def run(self, i: int, group: nn.Module, x: Tensor) -> Tensor:
        """Execute one group as the plan says."""
        if self.plan[i] == 1:
            out: Tensor = checkpoint(group, x, use_reentrant=False, preserve_rng_state=False)
            return out
        if self.plan[i] == 2:
            with self._hooks(x):
                moved: Tensor = group(x)
            return moved
        kept: Tensor = group(x)
        return kept

    def step(self, tokens: Tensor) -> float:
        """Forward and backward; gradients are left on the parameters, return the loss."""
        self.tier.restart()
        for p in self.model.parameters():
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            else:
                p.grad.zero_()
        loss = self.model(tokens, self.run)
        loss.backward()
        return float(loss.detach())


def group_bytes(model: Decoder, tokens: Tensor) -> list[dict[str, int]]:
    """Bytes each group saves for its backward pass (storages counted once), and what is too small."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: list[dict[str, int]] = []
    alive: list[Any] = []

    def run(i: int, group: nn.Module, x: Tensor) -> Tensor:
        seen: dict[int, int] = {}

        def pack(y: Tensor) -> Tensor:
            storage = y.untyped_storage()
            if storage.data_ptr() not in own:
                seen[storage._cdata] = storage.nbytes()
                alive.append(storage)
            return y

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda y: y):
            out: Tensor = group(x)
        mine = x.untyped_storage()._cdata
        found.append(
            {
                "size": sum(seen.values()),
                "input": seen.get(mine, x.untyped_storage().nbytes()),
                "small": sum(v for v in seen.values() if v < LEAST),
            }
        )
        return out

    model(tokens, run)
    return found
