"""Packers of one instance: rules, climbs, learned priorities, CP-SAT, MiniMalloc."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

from allocgym.agents.core import cp_sat as budgeted
from allocgym.agents.packing.order import ORDERS, climb, height, offsets
from allocgym.agents.packing.priority import Priorities, shipped
from allocgym.envs.core.errors import unknown
from allocgym.envs.packing.buffer import Buffers, to_csv

SOLVERS = (
    "program",
    "size",
    "lifetime",
    "area",
    "contention",
    "learned",
    "climb",
    "learned+climb",
    "cp-sat",
    "minimalloc",
)


@dataclasses.dataclass
class Packed:
    """What a packer returned: ``(n,)`` offsets (None: it found none), CPU seconds, its own word."""

    offsets: np.ndarray | None
    seconds: float
    status: str = ""


def solve(
    name: str, b: Buffers, seconds: float = 10.0, seed: int = 0, learned: Priorities | None = None
) -> Packed:
    """Pack one instance.

    Args:
        name: of `SOLVERS`.
        b: what is packed.
        seconds: CPU budget of searches; rules ignore it.
        seed: of searches.
        learned: priorities (default: the shipped ones).
    """
    if name not in SOLVERS:
        raise unknown("solver", name, list(SOLVERS))
    begun = time.process_time()
    if name in ("cp-sat", "minimalloc"):
        return cp_sat(b, seconds, seed) if name == "cp-sat" else minimalloc(b, seconds)
    if name in ORDERS:
        at = offsets(b, ORDERS[name](b))
    else:
        rules = [f(b) for f in ORDERS.values()]
        mine = [] if name == "climb" else (learned or shipped()).orders(b)
        if name == "learned":
            at = offsets(b, min(mine, key=lambda o: height(b, o)))
        else:
            left = seconds - (time.process_time() - begun)
            at = offsets(b, climb(b, [*mine, *rules], left, seed)[0])
    fits = bool((at + b.size).max() <= b.capacity)
    return Packed(at, time.process_time() - begun, "fits" if fits else "too high")


def cp_sat(b: Buffers, seconds: float, seed: int = 0) -> Packed:
    """Find a packing within the capacity by OR-Tools' CP-SAT on one worker.

    Rectangles that do not overlap in compressed time and granules (the sizes' common divisor), with
    the capacity as a hard bound and a redundant cumulative constraint.
    """
    cp_model = budgeted.library()
    begun = time.process_time()
    unit = int(np.gcd.reduce([*b.size.tolist(), b.capacity]))
    _, first, last = b.loads
    model = cp_model.CpModel()
    wide, tall, start = [], [], []
    for i in range(len(b.size)):
        size = int(b.size[i]) // unit
        at = model.new_int_var(0, b.capacity // unit - size, "")
        start.append(at)
        span = int(last[i] - first[i])
        wide.append(model.new_fixed_size_interval_var(int(first[i]), span, ""))
        tall.append(model.new_fixed_size_interval_var(at, size, ""))
    model.add_no_overlap_2d(wide, tall)
    model.add_cumulative(wide, (b.size // unit).tolist(), b.capacity // unit)
    solver, status = budgeted.solve(model, seconds, seed)
    spent = time.process_time() - begun
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return Packed(None, spent, solver.status_name(status).lower())
    return Packed(np.array([solver.value(v) * unit for v in start]), spent, "fits")


def minimalloc(b: Buffers, seconds: float) -> Packed:
    """Ask a ``minimalloc`` executable, where one is on the path (Moffitt, ASPLOS 2023)."""
    program = shutil.which("minimalloc")
    if program is None:
        return Packed(None, 0.0, "not installed")
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.csv"), Path(folder, "out.csv")
        source.write_text(to_csv(b))
        command = [
            program,
            f"--capacity={b.capacity}",
            f"--input={source}",
            f"--output={target}",
            f"--timeout={seconds:g}s",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        spent = time.perf_counter() - begun
        if done.returncode or not target.exists():
            return Packed(None, spent, "not solved")
        rows = target.read_text().split()
        keys = rows[0].split(",")
        table = [dict(zip(keys, r.split(","), strict=True)) for r in rows[1:]]
    at = np.zeros(len(b.size), np.int64)
    for row in table:
        at[int(row["id"])] = int(row["offset"])
    return Packed(at, spent, "fits")
