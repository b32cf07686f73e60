"""The machine event by event: a compute stream and one memory bus that serves operands and copies."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import simpy

from allocgym.envs.memory_mapping.board import Board, MappingInstance
from allocgym.envs.memory_mapping.plan import Plan, traffic
from allocgym.envs.memory_mapping.program import Device, Program


def run(
    comp: Sequence[float],
    slow: Sequence[float],
    fast: Sequence[float],
    copied: Sequence[float],
    slow_rate: float,
    fast_rate: float,
) -> float:
    """Play a program in SimPy.

    Each op is issued when the one before has finished. Its arithmetic runs on the compute stream; its
    operands and the copy engine's chunk of that op queue for the memory bus, one after the other.
    The op ends when both are through.

    Args:
        comp: ``(ops,)`` seconds of arithmetic.
        slow: ``(ops,)`` operand bytes in slow memory.
        fast: ``(ops,)`` operand bytes in fast memory.
        copied: ``(ops,)`` bytes the copy engine moves during each op.
        slow_rate: bytes a second.
        fast_rate: bytes a second.

    Returns:
        Seconds until the last op has ended.
    """
    env = simpy.Environment()
    stream, bus = simpy.Resource(env), simpy.Resource(env)

    def hold(resource: simpy.Resource, seconds: float) -> Generator[Any, Any, None]:
        with resource.request() as turn:
            yield turn
            yield env.timeout(seconds)

    def program() -> Generator[Any, Any, None]:
        for c, s, f, moved in zip(comp, slow, fast, copied, strict=True):
            work = [env.process(hold(stream, c))] if c else []
            for size, rate in ((s, slow_rate), (moved, slow_rate), (f, fast_rate)):
                if size:
                    work.append(env.process(hold(bus, size / rate)))
            if work:
                yield env.all_of(work)

    env.run(until=env.process(program()))
    return float(env.now)


def run_board(inst: MappingInstance, board: Board, row: int) -> float:
    """Play a row of a batch as it is mapped now."""
    return run(
        inst.comp[row].tolist(),
        board.slow[row].tolist(),
        board.fast[row].tolist(),
        board.copied[row].tolist(),
        float(inst.slow_rate[row]),
        float(inst.fast_rate[row]),
    )


def run_plan(program: Program, device: Device, plan: Plan) -> float:
    """Play a program under a plan."""
    slow, fast, copied = (v.tolist() for v in traffic(program, plan))
    return run(program.compute(device).tolist(), slow, fast, copied, device.slow, device.fast)
