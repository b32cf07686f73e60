"""``--suite speed``: the batched evaluator and the batched environment on one core."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

from allocgym.agents.memory_mapping import order as orders
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.rates import rate
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.envs.memory_mapping import board as boards
from allocgym.envs.memory_mapping.game import Game
from allocgym.simulators.memory_mapping import machine
from allocgym.simulators.memory_mapping.program import device, gpt

ID = "allocgym:allocgym/MemoryMapping-v0"


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seconds = 3.0 if options.quick else 9.0
    program = gpt(512, 12, 256)
    chip = device(program, 0.5)
    batch = 256
    shape = (len(program.ops), len(program.tensors), len(program.segments))
    inst = boards.pack([program] * batch, [chip] * batch, shape)
    game = Game(program, chip)
    game.order(orders.xla(program, chip))
    plan = game.plan
    rng = np.random.default_rng(0)
    moved = rng.random((batch, shape[2])) < 0.5
    born = rng.random((batch, shape[1])) < 0.5
    copied = rng.integers(0, 100_000, (batch, shape[0]))

    def evaluate() -> int:
        boards.price_many(inst, moved, born, copied)
        return batch

    def simulate() -> int:
        machine.run_plan(program, chip, plan)
        return 1

    def place() -> int:
        game.order(orders.xla(program, chip))
        return 1

    many: Any = gym.make_vec(ID, num_envs=512).unwrapped
    many.reset(seed=0)
    stay = np.ones(512, np.int64)

    def decide() -> int:
        many.step(stay)
        return 512

    alone: Any = gym.make(ID, backend="simpy").unwrapped
    alone.reset(seed=0)

    def one() -> int:
        if alone.step(np.int64(1))[2]:
            alone.reset()
        return 1

    fast, slow = rate(evaluate, seconds), rate(simulate, seconds)
    orders_a_second, decisions, scalar = (
        rate(place, seconds),
        rate(decide, seconds),
        rate(one, seconds),
    )
    columns = ["what", "per CPU-second"]
    rows = [
        [f"batched evaluator, {program.name} ({shape[0]} ops)", f"{fast:,.0f} programs"],
        ["the same plan in SimPy", f"{slow:,.0f} programs"],
        ["whole orders placed", f"{orders_a_second:,.0f} programs"],
        ["batched environment, 512 at once", f"{decisions:,.0f} decisions"],
        ["scalar environment, SimPy", f"{scalar:,.0f} decisions"],
    ]
    show("speed, one core", columns, rows)
    figures = [
        Figure(
            "batched evaluator, GPT programs/s",
            round(fast),
            ">= 2,000",
            fast >= 2000,
            detail=f"{program.name}, float64, complete plans",
        ),
        Figure(
            "batched environment, decisions/s",
            round(decisions),
            ">= 20,000",
            decisions >= 20_000,
            detail="512 environments, float64, observations included",
        ),
        Figure("evaluator over SimPy", round(fast / slow, 1), "printed", True),
    ]
    return finish("speed", figures, {"table": {"columns": columns, "rows": rows}}, begun, options)
