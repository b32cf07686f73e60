"""Solvers of one program: greedy rules, searches, learned priorities and policies, CP-SAT."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np

from allocgym.agents.memory_mapping import exact
from allocgym.agents.memory_mapping import order as orders
from allocgym.agents.memory_mapping.priority import Priorities
from allocgym.envs.core.errors import unknown
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import Plan
from allocgym.envs.memory_mapping.problem import MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program

PRETRAINED = Path(__file__).parent / "pretrained"
SOLVERS = (
    "drop-all",
    *orders.GREEDY,
    "learned",
    "ppo",
    "best-of",
    "order-climb",
    "learned+climb",
    "tree",
    "cp-sat",
)


@dataclasses.dataclass
class Solved:
    """What a solver returned: the plan, the fraction saved, CPU seconds and a bound if it has one."""

    plan: Plan
    saved: float
    seconds: float
    bound: float | None = None


def solve(
    name: str,
    program: Program,
    device: Device,
    seconds: float = 1.0,
    seed: int = 0,
    learned: Priorities | None = None,
) -> Solved:
    """Solve one program.

    Args:
        name: of `SOLVERS`; ``"best-of"`` is the best of the learned portfolio and every greedy rule.
        program: what is mapped.
        device: what it runs on.
        seconds: CPU budget of searches; greedy rules and the learned agent ignore it.
        seed: of searches.
        learned: priorities (default: the shipped ones).

    Raises:
        AllocgymError: no solver of that name.
    """
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS)
    begun = time.process_time()

    def left() -> float:
        return seconds - (time.process_time() - begun)

    bound = None
    if name == "drop-all":
        plan, got = Plan(), 0.0
    elif name in ("ppo", "tree"):
        got, plan = _guided(name, program, device, left())
    elif name == "cp-sat":
        start = orders.best_of(Game(program, device), _greedy(program, device)).plan
        solution = exact.cp_sat(program, device, max(left(), 0.02), start)
        got, plan, bound = solution.saved, solution.plan, solution.bound
    else:
        starts: list[np.ndarray] = []
        if name in ("learned", "best-of", "learned+climb"):
            shipped = PRETRAINED / "priorities.zip"
            policy = learned or Priorities.load(shipped, MemoryMapping())
            starts = policy.orders(program, device)
        if name in orders.GREEDY:
            starts = [orders.GREEDY[name](program, device)]
        elif name != "learned":
            starts += _greedy(program, device)
        game = Game(program, device)
        if name.endswith("climb"):
            found = orders.climb(game, starts, left(), seed)
        else:
            found = orders.best_of(game, starts)
        got, plan = found.saved, found.plan
    return Solved(plan, got, time.process_time() - begun, bound)


def _greedy(program: Program, device: Device) -> list[np.ndarray]:
    return [rule(program, device) for rule in orders.GREEDY.values()]


def _guided(name: str, program: Program, device: Device, seconds: float) -> tuple[float, Plan]:
    """What the shipped policy of segments plays, alone or in a tree search."""
    from allocgym.agents.core import segment_policy as segments
    from allocgym.agents.memory_mapping import tree

    begun = time.process_time()
    net = segments.load(PRETRAINED / "segments.zip", MemoryMapping())
    if name == "ppo":
        return tree.play(program, device, tree.greedy(program, device, net))
    found = orders.best_of(Game(program, device), [orders.xla(program, device)])
    left = seconds - (time.process_time() - begun)
    return tree.search(program, device, net, left, (found.saved, found.plan))
