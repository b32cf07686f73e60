"""Agent files: a zip of ``agent.json`` and, for learned agents, ``weights.safetensors``.

Nothing in it is ever executed: JSON and safetensors are data formats, no pickle is read. A file may
come from a stranger: how much memory it takes is known, and within limits, before any is taken.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, missing_extra
from allocgym.envs.core.journal import atomic
from allocgym.envs.core.untrusted import loads

N = TypeVar("N")

SCHEMA = 1
MEMBERS = {"agent.json", "weights.safetensors"}
LARGEST = 256 * 2**20  # bytes of the file, and of the weights in it
DESCRIPTION = 2**20  # bytes of agent.json, and of the header of the weights
DIRECTORY = 4096  # bytes of the list of members
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}


def encoder_hash(problem: Problem) -> str:
    """Fingerprint of what a policy reads and writes: changes when the encoding does."""
    features = getattr(problem, "features", ())
    text = json.dumps([problem.id, list(features)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_writable(path: Path) -> None:
    """Raise `AllocgymError` where an agent file cannot be written, before the work is done."""
    folder = Path(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AllocgymError(f"out: {folder} cannot be made ({error.strerror})") from error
    if Path(path).is_dir() or not os.access(folder, os.W_OK):
        raise AllocgymError(f"out: a file that can be written expected, given {path}")


def save(
    path: Path,
    problem: Problem,
    kind: str,
    settings: dict[str, Any],
    weights: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write an agent file atomically.

    Args:
        path: where to.
        problem: what the agent decides.
        kind: ``"set-policy"`` with weights, or the name of a heuristic.
        settings: constructor arguments, JSON-serialisable.
        weights: tensors by name, or None.
        provenance: how it was made (scenario, seed, steps, seconds, observation ranges).
    """
    description = {
        "schema": SCHEMA,
        "problem": problem.id,
        "encoder": encoder_hash(problem),
        "kind": kind,
        "settings": settings,
        "kappa": getattr(problem, "kappa", None),
        "provenance": {"python": platform.python_version(), **(provenance or {})},
    }
    with atomic(path, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("agent.json", json.dumps(description, indent=1))
        if weights is not None:
            from safetensors.torch import save as tensors_to_bytes

            flat = {k: v.detach().cpu().contiguous() for k, v in weights.items()}
            archive.writestr("weights.safetensors", tensors_to_bytes(flat))


def load(path: Path, problem: Problem) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Read an agent file.

    Returns:
        The description, and the tensors by name (None for a heuristic).

    Raises:
        AllocgymError: no such file, or an agent of another problem or encoding.
        CorruptFileError: not an agent file, or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise AllocgymError(f"agent: no file {path}")
    try:
        description, raw = _members(path)
    except AllocgymError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
        raise CorruptFileError(f"{path}: not an agent file, or damaged ({error})") from error
    if not isinstance(description, dict) or description.get("schema") != SCHEMA:
        raise CorruptFileError(f"{path}: agent file of schema {SCHEMA} expected")
    if description.get("problem") != problem.id:
        raise AllocgymError(
            f"{path}: an agent of {description.get('problem')!r}, not of {problem.id!r}"
        )
    if description.get("encoder") != encoder_hash(problem):
        raise AllocgymError(f"{path}: trained on another encoding of {problem.id!r}; retrain it")
    if not isinstance(description.get("kind"), str):
        raise CorruptFileError(f"{path}: names no kind of agent")
    if not isinstance(description.get("settings"), dict):
        raise CorruptFileError(f"{path}: its settings do not fit an agent: a dictionary expected")
    return description, None if raw is None else _tensors(path, raw)


def _members(path: Path) -> tuple[Any, bytes | None]:
    """Read the members of an agent file, none larger than it may be.

    What a zip says of itself is checked before the library believes it: its list of members is read
    whole, and bzip2 or LZMA would unpack four kilobytes into gigabytes at once.
    """
    size = path.stat().st_size
    if size > LARGEST:
        raise CorruptFileError(
            f"{path}: {size} bytes, larger than an agent file may be ({LARGEST})"
        )
    with open(path, "rb") as file:
        file.seek(max(size - 42, 0))
        end = file.read()
    if len(end) < 22 or end[-22:-18] != b"PK\x05\x06" or b"PK\x06\x07" in end[:-22]:
        raise CorruptFileError(f"{path}: not an agent file, or damaged (no plain end of a zip)")
    if int.from_bytes(end[-10:-6], "little") > DIRECTORY:
        raise CorruptFileError(f"{path}: not an agent file (too many members)")
    with zipfile.ZipFile(path) as archive:
        names = [info.filename for info in archive.infolist()]
        if "agent.json" not in names or not set(names) <= MEMBERS or len(set(names)) < len(names):
            raise CorruptFileError(
                f"{path}: not an agent file (holds {', '.join(sorted(names)) or 'nothing'}; "
                f"agent.json and weights.safetensors expected)"
            )
        description = loads(_member(path, archive, "agent.json", DESCRIPTION))
        raw = None
        if "weights.safetensors" in names:
            raw = _member(path, archive, "weights.safetensors", LARGEST)
    return description, raw


def _member(path: Path, archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CorruptFileError(f"{path}: {name} is packed in another way than agent files are")
    if info.file_size > most:
        raise CorruptFileError(
            f"{path}: {name} of {info.file_size} bytes is larger than it may be ({most})"
        )
    with archive.open(info) as file:
        # Asked for so many bytes, no more are unpacked, whatever the stream holds.
        data = file.read(info.file_size)
    if len(data) != info.file_size:
        raise CorruptFileError(f"{path}: {name} is damaged (cut short)")
    return data


def _tensors(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        import safetensors.torch as tensors
    except ImportError as error:
        raise missing_extra("safetensors", "real") from error
    try:
        _check_header(raw)
        weights: dict[str, Any] = tensors.load(raw)
    except Exception as error:  # safetensors raises its own, undocumented types
        raise CorruptFileError(f"{path}: damaged weights ({error})") from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CorruptFileError(f"{path}: damaged weights ({name} is not finite)")
    return weights


def _check_header(raw: bytes) -> None:
    """Refuse a header whose tensors are not exactly the bytes that follow it.

    Raises:
        ValueError: what is wrong.
    """
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > min(len(raw) - 8, DESCRIPTION):
        raise ValueError("the header is longer than the file, or than it may be")
    header = loads(raw[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("the header is no dictionary")
    end = 0
    header.pop("__metadata__", None)
    for name, told in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        shape, (begin, stop) = told["shape"], told["data_offsets"]
        if not all(type(d) is int and d >= 0 for d in shape) or told["dtype"] not in BYTES:
            raise ValueError(f"{name} is of no shape and dtype that agents have")
        if begin != end or stop - begin != math.prod(shape) * BYTES[told["dtype"]]:
            raise ValueError(f"{name} is not where, or as large as, the header says")
        end = stop
    if end != len(raw) - 8 - length:
        raise ValueError("the header does not account for all bytes")


def load_policy(path: Path, problem: Problem) -> tuple[Any, dict[str, Any]]:
    """Read a learned agent: the `SetPolicy` and its description."""
    description, weights = load(path, problem)
    if weights is None or description["kind"] != "set-policy":
        raise AllocgymError(f"{path}: holds {description['kind']!r}, not a learned policy")
    from allocgym.agents.core.networks import SetPolicy

    return network(path, SetPolicy, description["settings"], weights), description


def network(
    path: Path | str, make: Callable[..., N], settings: Mapping[str, Any], weights: Any
) -> N:
    """Build a network from the settings and weights of an agent file, ready to decide.

    Args:
        path: of the file, or its name, for the error.
        make: class of the network, a `torch.nn.Module`.
        settings: its arguments.
        weights: tensors by name.

    Raises:
        CorruptFileError: they do not fit each other.
    """
    import torch

    weights = weights or {}
    try:
        # Without memory first: the description may ask for any size, the weights have theirs.
        with torch.device("meta"):
            made: Any = make(**settings)
        dtypes = {tensor.dtype for tensor in weights.values()}
        if dtypes != {torch.float32}:
            raise TypeError(f"float32 expected, given {', '.join(sorted(map(str, dtypes)))}")
        made.load_state_dict(weights, assign=True)
    except (TypeError, RuntimeError, ValueError, LookupError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]  # torch says it in several lines
        raise CorruptFileError(f"{path}: weights do not fit the description ({reason})") from error
    found: N = made.eval()
    return found
