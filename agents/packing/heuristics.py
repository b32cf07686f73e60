"""Packers: orders of placement, a compiled hill-climb, learned priorities, CP-SAT, MiniMalloc."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent
from allocgym.agents.core.evolution import tune
from allocgym.agents.memory_mapping.exact import within
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, missing_extra, unknown
from allocgym.envs.core.kernels import kernel
from allocgym.envs.packing.problem import (
    Buffers,
    NextBuffer,
    Packing,
    PackingOutcome,
    place,
    to_csv,
)

KIND = "packing-priorities"
PRETRAINED = Path(__file__).parent / "pretrained" / "learned.zip"
TRAITS = (
    "log size",
    "log lifetime",
    "log area",
    "contention",
    "birth",
    "neighbours",
    "pressure beside",
)
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


def traits(b: Buffers) -> np.ndarray:
    """``(n, len(TRAITS))`` standardised descriptions of every buffer."""
    life = (b.upper - b.lower).astype(float)
    beside = (b.lower[:, None] < b.upper) & (b.lower < b.upper[:, None])
    table = np.stack(
        [
            np.log(b.size),
            np.log(life),
            np.log(b.size * life),
            b.contention / b.capacity,
            b.lower,
            beside.mean(1),
            np.log(beside @ (b.size * life)),
        ],
        1,
    )
    spread = table.std(0)
    found: np.ndarray = (table - table.mean(0)) / np.where(spread > 1e-9, spread, 1)
    return found


ORDERS: dict[str, Callable[[Buffers], np.ndarray]] = {
    "program": lambda b: np.lexsort((b.upper, b.lower)),
    "size": lambda b: np.lexsort((b.lower, -b.size)),
    "lifetime": lambda b: np.lexsort((-b.size, b.lower - b.upper)),
    "area": lambda b: np.argsort(-(b.upper - b.lower) * b.size, kind="stable"),
    "contention": lambda b: np.lexsort((-(b.upper - b.lower) * b.size, -b.contention)),
}
"""Size is the rule of TFLite and TVM; lifetime, area and contention sort as MiniMalloc's W, A, T do."""


def offsets(b: Buffers, order: np.ndarray) -> np.ndarray:
    """Place buffers in an order; return ``(n,)`` offsets."""
    at, stack = np.zeros(len(b.size), np.int64), np.zeros(len(b.size), np.int64)
    place(np.asarray(order, np.int64), b.lower, b.upper, b.size, at, stack)
    return at


@kernel
def _energy(
    order: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    capacity: int,
    at: np.ndarray,
    stack: np.ndarray,
) -> float:
    """Height, and (far behind it) the bytes that lie above the capacity."""
    height = place(order, lower, upper, size, at, stack)
    over = 0.0
    for b in range(len(size)):
        over += max(at[b] + size[b] - capacity, 0)
    return height + 1e-3 * over / len(size)


@kernel
def _climb(
    order: np.ndarray,
    best: float,
    drawn: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    size: np.ndarray,
    capacity: int,
    at: np.ndarray,
    stack: np.ndarray,
) -> float:
    """Try ``len(drawn)`` moves on ``order`` in place; keep what is not worse."""
    n = len(order)
    trial = order.copy()
    height = place(order, lower, upper, size, at, stack)
    for k in range(len(drawn)):
        i, j = int(drawn[k, 0] * n), int(drawn[k, 1] * n)
        if drawn[k, 2] < 0.5:  # a buffer at the top goes earlier
            start = i
            for step in range(n):
                i = (start + step) % n
                b = order[i]
                if at[b] + size[b] >= min(height, capacity + 1):
                    break
            j = int(drawn[k, 1] * (i + 1))
        if drawn[k, 2] < 0.25 or drawn[k, 2] > 0.75:
            trial[i], trial[j] = trial[j], trial[i]
        else:
            b = trial[i]
            if i < j:
                trial[i:j] = trial[i + 1 : j + 1].copy()
            else:
                trial[j + 1 : i + 1] = trial[j:i].copy()
            trial[j] = b
        got = _energy(trial, lower, upper, size, capacity, at, stack)
        if got <= best:
            best = got
            order[:] = trial
        else:
            trial[:] = order
            place(order, lower, upper, size, at, stack)
        height = 0
        for b in range(n):
            height = max(height, at[b] + size[b])
        if height <= capacity:
            return best
    return best


def climb(
    b: Buffers, starts: Sequence[np.ndarray], seconds: float, seed: int = 0, moves: int = 10**9
) -> tuple[np.ndarray, int]:
    """Hill-climb over orders from the best of some, until it fits or the time is over.

    Moves: a buffer elsewhere, two swapped; half of them take a buffer that reaches the top (or above
    the capacity) and place it earlier.

    Args:
        b: what is packed.
        starts: orders.
        seconds: CPU time.
        seed: of the moves.
        moves: at most.

    Returns:
        The best order and the moves tried.
    """
    begun = time.process_time()
    rng = np.random.default_rng(seed)
    at, stack = np.zeros(len(b.size), np.int64), np.zeros(len(b.size), np.int64)
    work = b.lower, b.upper, b.size, b.capacity, at, stack
    scored = [(_energy(o.astype(np.int64), *work), i) for i, o in enumerate(starts)]
    best, which = min(scored)
    order = starts[which].astype(np.int64)
    tried = 0
    chunk = 64
    while best > b.capacity and tried < moves and time.process_time() - begun < seconds:
        drawn = rng.random((min(chunk, moves - tried), 3))
        best = _climb(order, best, drawn, *work)
        tried += len(drawn)
    return order, tried


class PackingPriorities:
    """Orders buffers by learned scores, ``(members, traits)`` weights, one rule each."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = np.atleast_2d(np.asarray(weights, float))
        if self.weights.shape[1] != len(TRAITS):
            raise AllocgymError(
                f"weights: {len(TRAITS)} a member expected, given {self.weights.shape[1]}"
            )

    def orders(self, b: Buffers) -> list[np.ndarray]:
        """One order per member."""
        table = traits(b)
        return [np.argsort(-(table @ w), kind="stable") for w in self.weights]

    def order(self, b: Buffers) -> np.ndarray:
        """The order of least height."""
        return min(self.orders(b), key=lambda o: int((offsets(b, o) + b.size).max()))

    def save(self, path: Path, provenance: dict[str, Any]) -> None:
        """Write an agent file."""
        import torch

        weights = {"weights": torch.tensor(self.weights)}
        agent_file.save(path, Packing(), KIND, {"traits": list(TRAITS)}, weights, provenance)

    @classmethod
    def load(cls, path: Path = PRETRAINED) -> PackingPriorities:
        """Read an agent file."""
        description, weights = agent_file.load(path, Packing())
        if description["kind"] != KIND or weights is None or "weights" not in weights:
            raise CorruptFileError(f"{path}: holds {description['kind']!r}, not packing priorities")
        if description["settings"].get("traits") != list(TRAITS):
            raise AllocgymError(f"{path}: trained on other traits; retrain it")
        return cls(weights["weights"].numpy())


def train(
    draw: Callable[[int], Buffers],
    members: int = 3,
    iterations: int = 60,
    seed: int = 0,
    batch: int = 24,
) -> tuple[PackingPriorities, dict[str, Any]]:
    """Tune a portfolio by CMA-ES: the mean height of each instance's best member is minimised.

    Args:
        draw: makes the instance of a seed.
        members: rules in the portfolio.
        iterations: generations.
        seed: of everything.
        batch: instances per candidate.
    """
    kept: dict[int, tuple[Buffers, np.ndarray]] = {}

    def score(parameters: list[float], seeds: np.ndarray) -> float:
        if int(seeds[0]) not in kept:
            kept.clear()
            kept.update({int(s): (b, traits(b)) for s in seeds for b in [draw(int(s))]})
        w = np.array(parameters).reshape(members, -1)
        heights = []
        for s in seeds:
            b, table = kept[int(s)]
            each = [(offsets(b, np.argsort(-(table @ v), kind="stable")) + b.size).max() for v in w]
            heights.append(min(each) / b.capacity)
        return float(np.mean(heights))

    start = np.zeros((members, len(TRAITS)))
    for m in range(members):
        start[m, (2, 1, 0)[m % 3]] = 1.0  # area, lifetime, size
    found, provenance = tune(score, batch, start.ravel().tolist(), 0.4, iterations, seed)
    provenance["members"] = members
    return PackingPriorities(np.array(found).reshape(members, -1)), provenance


@dataclasses.dataclass
class Packed:
    """What a packer returned: ``(n,)`` offsets (None: it found none), CPU seconds, its own word."""

    offsets: np.ndarray | None
    seconds: float
    status: str = ""


def solve(
    name: str,
    b: Buffers,
    seconds: float = 10.0,
    seed: int = 0,
    learned: PackingPriorities | None = None,
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
        mine = [] if name == "climb" else (learned or PackingPriorities.load()).orders(b)
        if name == "learned":
            at = min((offsets(b, o) for o in mine), key=lambda v: int((v + b.size).max()))
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
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise missing_extra("ortools", "solvers") from error
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
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    status = within(solver, model, seconds)
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


class Packer(Agent[PackingOutcome, NextBuffer]):
    """Plans an order when the episode starts and plays it.

    Args:
        problem: `Packing`.
        name: of `SOLVERS`, ``"random"``, or an agent file.
        seconds: CPU budget of searches, per episode.
    """

    def __init__(self, problem: Packing, name: str, seconds: float = 0.2) -> None:
        super().__init__(problem)
        self.seconds = seconds
        self._learned: PackingPriorities | None = None
        if name not in (*SOLVERS, "random"):
            if Path(name).suffix != ".zip":
                raise unknown("agent", name, [*SOLVERS, "random"])
            self._learned = PackingPriorities.load(Path(name))
            name = "learned"
        self.name = name
        self._plans: dict[int, np.ndarray] = {}

    def _start(self) -> None:
        self._plans = {}
        self._rng = np.random.default_rng(self.seed)

    def _plan(self, row: int) -> np.ndarray:
        s = self.memory.state
        here = np.flatnonzero(s.present[row])
        b = Buffers(
            f"row-{row}",
            s.lower[row, here],
            s.upper[row, here],
            s.size[row, here],
            int(s.capacity[row]),
        )
        if self.name == "random":
            return here[self._rng.permutation(len(here))]
        found = solve(self.name, b, self.seconds, self.seed, self._learned)
        at = found.offsets if found.offsets is not None else offsets(b, ORDERS["area"](b))
        # Lowest first: nothing ends up higher than where it was planned.
        return here[np.argsort(at, kind="stable")]

    def ask(self) -> NextBuffer:
        """See `Agent.ask`."""
        memory = self.memory
        pick = np.full(len(memory.step), -1)
        for row in np.flatnonzero(~memory.done).tolist():
            step = int(memory.step[row])
            if step == 0 or row not in self._plans:
                self._plans[row] = self._plan(row)
            pick[row] = self._plans[row][step]
        return NextBuffer(pick)


def names() -> list[str]:
    """Names that `Packer` understands."""
    return [*SOLVERS, "random"]
