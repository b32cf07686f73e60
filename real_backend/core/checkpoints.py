"""Named tensors and JSON in one safetensors file: no pickle, whole or not at all, checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import atomic
from allocgym.envs.core.untrusted import loads


def _checksum(tensors: Mapping[str, torch.Tensor], text: str) -> str:
    digest = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save(path: Path, tensors: Mapping[str, torch.Tensor], data: Any = None) -> None:
    """Write tensors and JSON-serialisable data so that a kill leaves the old file or the new one.

    Args:
        path: of the file; its folder is made.
        tensors: on any device; scalars are fine.
        data: infinities and NaN survive.
    """
    # Tied or strided tensors would make safetensors refuse.
    held = {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}
    text = json.dumps(data)
    metadata = {"data": text, "checksum": _checksum(held, text)}
    with atomic(Path(path), "wb") as file:
        file.write(safetensors.torch.save(held, metadata))


def load(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """Read what `save` wrote, onto the CPU.

    Raises:
        AllocgymError: there is no such file.
        CorruptFileError: it is damaged, cut short or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise AllocgymError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            # Copies: the file is mapped, and may be replaced while its tensors are in use.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        text = metadata["data"]
        whole = metadata["checksum"] == _checksum(tensors, text)
    except (safetensors.SafetensorError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise CorruptFileError(f"{path}: damaged or not a checkpoint ({error})") from error
    if not whole:
        raise CorruptFileError(f"{path}: damaged (its checksum does not match)")
    return tensors, loads(text)
