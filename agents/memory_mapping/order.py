"""Orders of placement: every greedy rule is one, a search looks for a better one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

import numpy as np

from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import Plan
from allocgym.envs.memory_mapping.program import Device, Program

FEATURES = (
    "log size",
    "log benefit per byte",
    "log benefit",
    "uses",
    "log distance",
    "parameter",
    "idle over size",
    "program position",
    "log gap",
    "share of capacity",
    "log benefit per area",
)


def candidates(program: Program) -> np.ndarray:
    """Tensors that are read at all, by index."""
    return np.array([i for i, mine in enumerate(program.of_tensor) if mine])


def benefits(program: Program, device: Device) -> np.ndarray:
    """``(tensors,)`` seconds saved at birth and uses were this tensor alone in fast memory.

    The benefit of XLA's memory-space assignment (openxla/xla, cost_analysis.cc): memory time with and
    without the operand where an op is bound by memory, the (negative) difference to its compute time
    where it is not; positive terms are added up, else the largest is taken.
    """
    comp = program.compute(device)
    memory = program.traffic / device.slow
    per_byte = 1 / device.slow - 1 / device.fast
    out = np.zeros(len(program.tensors))
    for i, x in enumerate(program.tensors):
        touched = [t for t in (x.born, *x.uses) if t >= 0]
        each = np.array(
            [
                min(x.size * per_byte, memory[t] - comp[t])
                if memory[t] > comp[t]
                else memory[t] - comp[t]
                for t in touched
            ]
        )
        positive = each[each > 0]
        out[i] = positive.sum() if len(positive) else each.max(initial=-1.0)
    return out


def features(program: Program, device: Device) -> np.ndarray:
    """``(tensors, len(FEATURES))`` standardised descriptions of every tensor."""
    comp = program.compute(device)
    gain = np.maximum(benefits(program, device), 0)
    idle = np.maximum(comp * device.slow - program.traffic, 0)
    before = np.concatenate([[0], idle.cumsum()])
    rows = []
    for i, x in enumerate(program.tensors):
        uses = x.uses or (max(x.born, 0),)
        start = max(x.born, 0)
        gaps = np.diff([start, *uses])
        room = before[uses[0]] - before[start]
        rows.append(
            [
                np.log(x.size),
                np.log(gain[i] / x.size * device.slow + 1e-3),
                np.log(gain[i] / program.all_slow(device) + 1e-5),
                len(x.uses),
                np.log1p(uses[-1] - start),
                x.born < 0,
                min(room / x.size, 4.0),
                uses[0] / len(program.ops),
                np.log1p(gaps.max(initial=0)),
                min(x.size / device.capacity, 1.0),
                np.log(gain[i] / x.size * device.slow / (uses[-1] - start + 1) + 1e-4),
            ]
        )
    table = np.array(rows, float)
    table[:, 0] -= np.log(device.capacity)
    spread = table.std(0)
    return (table - table.mean(0)) / np.where(spread > 1e-9, spread, 1)


def first_fit(program: Program, device: Device) -> np.ndarray:
    """Program order: earlier births first, parameters when they are used."""
    ids = candidates(program)
    when = [
        max(program.tensors[i].born, 0)
        if program.tensors[i].born >= 0
        else program.tensors[i].uses[0]
        for i in ids
    ]
    return ids[np.argsort(when, kind="stable")]


def by_size(program: Program, device: Device) -> np.ndarray:
    """Largest first."""
    ids = candidates(program)
    return ids[np.argsort([-program.tensors[i].size for i in ids], kind="stable")]


def by_density(program: Program, device: Device) -> np.ndarray:
    """Most benefit per byte first."""
    ids = candidates(program)
    sizes = np.array([program.tensors[i].size for i in ids])
    return ids[np.argsort(-benefits(program, device)[ids] / sizes, kind="stable")]


def xla(program: Program, device: Device) -> np.ndarray:
    """XLA's sort key, benefit / sqrt(size) (openxla/xla, memory_space_assignment)."""
    ids = candidates(program)
    sizes = np.array([program.tensors[i].size for i in ids])
    return ids[np.argsort(-benefits(program, device)[ids] / np.sqrt(sizes), kind="stable")]


GREEDY: dict[str, Callable[[Program, Device], np.ndarray]] = {
    "first-fit": first_fit,
    "size": by_size,
    "density": by_density,
    "xla": xla,
}


@dataclasses.dataclass
class Found:
    """What a search returned: fraction saved, plan, its order, orders evaluated."""

    saved: float
    plan: Plan
    order: np.ndarray
    tried: int


def best_of(game: Game, orders: Sequence[np.ndarray], seconds: float = float("inf")) -> Found:
    """The first best of several orders, priced exactly; at least one, for ``seconds`` of CPU time."""
    begun = time.process_time()
    best, chosen, tried = -np.inf, orders[0], 0
    for order in orders:
        got = game.order(order)
        tried += 1
        if got > best:
            best, chosen = got, order
        if time.process_time() - begun > seconds:
            break
    game.order(chosen)
    return Found(best, game.plan, np.asarray(chosen), tried)


def climb(
    game: Game,
    starts: Sequence[np.ndarray],
    seconds: float,
    seed: int = 0,
    evaluations: int = 10**9,
) -> Found:
    """Hill-climb over orders: move one tensor elsewhere or swap two, keep what is not worse.

    Args:
        game: of the program.
        starts: orders to begin with; the best of them is climbed from.
        seconds: CPU time, the starts included.
        seed: of the moves.
        evaluations: at most.
    """
    begun = time.process_time()
    rng = np.random.default_rng(seed)
    found = best_of(game, starts, seconds)
    n = len(found.order)
    while n > 1 and found.tried < evaluations and time.process_time() - begun < seconds:
        trial = found.order.tolist()
        i, j = rng.integers(n, size=2)
        if rng.random() < 0.5:
            trial[i], trial[j] = trial[j], trial[i]
        else:
            trial.insert(j, trial.pop(i))
        got = game.order(trial)
        found.tried += 1
        if got >= found.saved:
            found.saved, found.order = got, np.array(trial)
    game.order(found.order)
    found.plan = game.plan
    return found
