"""Agent files: a zip of ``agent.json`` and, for learned agents, ``weights.safetensors``.

Nothing in it is ever executed: JSON and safetensors are data formats, no pickle is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import zipfile
import zlib
from pathlib import Path
from typing import Any

from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, missing_extra
from allocgym.envs.core.journal import atomic

SCHEMA = 1
MEMBERS = {"agent.json", "weights.safetensors"}
LARGEST = 256 * 2**20


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
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            if "agent.json" not in names or not names <= MEMBERS:
                raise CorruptFileError(
                    f"{path}: not an agent file (holds {', '.join(sorted(names)) or 'nothing'}; "
                    f"agent.json and weights.safetensors expected)"
                )
            if sum(info.file_size for info in archive.infolist()) > LARGEST:
                raise CorruptFileError(f"{path}: larger than an agent file may be")
            description = json.loads(archive.read("agent.json"))
            raw = archive.read("weights.safetensors") if "weights.safetensors" in names else None
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
    weights = None
    if raw is not None:
        try:
            import safetensors.torch as tensors
        except ImportError as error:
            raise missing_extra("safetensors", "real") from error
        try:
            weights = tensors.load(io.BytesIO(raw).getvalue())
        except Exception as error:  # safetensors raises its own, undocumented types
            raise CorruptFileError(f"{path}: damaged weights ({error})") from error
    return description, weights


def load_policy(path: Path, problem: Problem) -> tuple[Any, dict[str, Any]]:
    """Read a learned agent: the `SetPolicy` and its description."""
    description, weights = load(path, problem)
    if weights is None or description["kind"] != "set-policy":
        raise AllocgymError(f"{path}: holds {description['kind']!r}, not a learned policy")
    from allocgym.agents.core.networks import SetPolicy

    try:
        policy = SetPolicy(**description["settings"])
        policy.load_state_dict(weights)
    except (TypeError, RuntimeError) as error:
        raise CorruptFileError(f"{path}: weights do not fit the description ({error})") from error
    return policy.eval(), description
