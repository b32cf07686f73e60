"""Agents of memory mapping by name or file; solvers by name."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent
from allocgym.agents.memory_mapping import exact
from allocgym.agents.memory_mapping import heuristics as playing
from allocgym.agents.memory_mapping import order as orders
from allocgym.agents.memory_mapping.priority import KIND, Priorities
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.memory_mapping.placer import Placer
from allocgym.envs.memory_mapping.plan import Plan
from allocgym.envs.memory_mapping.problem import MemoryMapping
from allocgym.envs.memory_mapping.program import Device, Program

PRETRAINED = Path(__file__).parent / "pretrained"
SHIPPED = ("priorities", "segments")
"""Agent files of this problem in that folder."""
RULES: dict[str, Callable[[MemoryMapping], Agent]] = {
    "drop-all": playing.DropAll,
    "myopic": playing.Myopic,
    "random": playing.RandomPlayer,
}
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


def names() -> list[str]:
    """Names `make` understands, besides paths of agent files."""
    return [*RULES, *orders.GREEDY, "order-climb", *SHIPPED]


def make(name: str | Path, problem: MemoryMapping) -> Agent:
    """Build an agent from a name or an agent file.

    Raises:
        AllocgymError: neither a known name nor a file.
    """
    text = str(name)
    if text in RULES:
        return RULES[text](problem)
    if text in orders.GREEDY:
        return playing.OrderAgent(problem, orders.GREEDY[text], text)
    if text == "order-climb":
        order = playing.searching(list(orders.GREEDY.values()), 0.1)
        return playing.OrderAgent(problem, order, text)
    shipped = PRETRAINED / f"{text}.zip"
    path = shipped if shipped.exists() else Path(text)
    if path.suffix == ".zip" or path.exists():
        description, _ = agent_file.load(path, problem)
        if description["kind"] == "segment-policy" and not problem.order:
            from allocgym.agents.core import segment_policy as segments

            return playing.Learned(problem, segments.load(path, problem), path.stem)
        if description["kind"] == "segment-policy":
            raise AllocgymError(
                f"{path}: plays the segment game; make the problem with order=False"
            )
        if description["kind"] != KIND:
            raise AllocgymError(f"{path}: unknown kind of agent {description['kind']!r}")
        return playing.OrderAgent(problem, Priorities.load(path).order, path.stem)
    raise unknown("agent", text, names())


@dataclasses.dataclass
class Solved:
    """What a solver returned: the plan, the fraction saved, CPU seconds and a bound if it has one."""

    plan: Plan
    saved: float
    seconds: float
    bound: float | None = None


def best_of(
    program: Program, device: Device, found: Sequence[np.ndarray]
) -> tuple[float, Plan, np.ndarray]:
    """The best of several orders, priced exactly: never worse than any of them."""
    placer = Placer(program, device)
    best, plan, order = -np.inf, Plan(), found[0]
    for o in found:
        got = placer.order(o)
        if got > best:
            best, plan, order = got, placer.plan, o
    return best, plan, order


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
    """
    begun = time.process_time()
    greedy = [f(program, device) for f in orders.GREEDY.values()]
    bound = None
    if name == "drop-all":
        plan, got = Plan(), 0.0
    elif name in orders.GREEDY:
        got, plan, _ = best_of(program, device, [orders.GREEDY[name](program, device)])
    elif name in ("learned", "best-of", "learned+climb"):
        policy = learned or Priorities.load(PRETRAINED / "priorities.zip")
        mine = policy.orders(program, device)
        if name == "learned+climb":
            left = seconds - (time.process_time() - begun)
            found = orders.climb(Placer(program, device), mine + greedy, left, seed)
            got, plan = found.saved, found.plan
        else:
            got, plan, _ = best_of(program, device, mine + (greedy if name == "best-of" else []))
    elif name == "order-climb":
        found = orders.climb(Placer(program, device), greedy, seconds, seed)
        got, plan = found.saved, found.plan
    elif name in ("ppo", "tree"):
        from allocgym.agents.core import segment_policy as segments
        from allocgym.agents.memory_mapping import tree

        net = segments.load(PRETRAINED / "segments.zip", MemoryMapping())
        if name == "ppo":
            got, plan = tree.play(program, device, tree.greedy(program, device, net))
        else:
            left = seconds - (time.process_time() - begun)
            begin = best_of(program, device, [orders.GREEDY["xla"](program, device)])[:2]
            got, plan = tree.search(program, device, net, left, begin)
    elif name == "cp-sat":
        _, plan, _ = best_of(program, device, greedy)
        solution = exact.cp_sat(
            program, device, max(seconds - (time.process_time() - begun), 0.02), plan
        )
        got, plan, bound = solution.saved, solution.plan, solution.bound
    else:
        raise unknown("solver", name, SOLVERS)
    return Solved(plan, got, time.process_time() - begun, bound)
