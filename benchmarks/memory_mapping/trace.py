"""``allocgym trace memory-mapping``: record a PyTorch model as a program."""

from __future__ import annotations

from pathlib import Path

from allocgym.envs.core.errors import missing_extra
from allocgym.envs.core.journal import write_json
from allocgym.envs.memory_mapping.program import from_trace


def trace(model: str, out: Path, mode: str) -> str:
    """Record a model and write the file.

    Args:
        model: ``module:callable`` that returns (model, example inputs), or a bundled name.
        out: JSON file.
        mode: ``"forward"`` or ``"training"``.

    Returns:
        What was written, in a sentence.

    Raises:
        AllocgymError: no such model or mode.
        ImportError: torch is not installed.
    """
    try:
        from allocgym.real_backend.memory_mapping.trace import record
    except ImportError as error:
        raise missing_extra("torch", "real") from error
    found = record(model, mode)
    program = from_trace(found, out.stem)
    write_json(out, found)
    return (
        f"wrote {out}: {len(program.ops)} ops, {len(program.tensors)} buffers, "
        f"{sum(o.flops for o in program.ops) / 1e9:.3g} GFLOP, peak {program.peak / 2**20:.4g} MiB; "
        f"play it: allocgym evaluate memory-mapping --scenario {out} --agents priorities,size"
    )
