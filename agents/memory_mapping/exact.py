"""The mapping game as a mixed-integer program: CP-SAT for plans and bounds, HiGHS for a quick bound."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np

from allocgym.agents.core import cp_sat as budgeted
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import COPY, DROP, STAY, Plan, Residence, saved, validate
from allocgym.envs.memory_mapping.program import PAGES, Device, Program

UNIT = 256
"""Bytes per integer unit. Base traffic is rounded down, savings up: a bound stays a bound."""


@dataclasses.dataclass
class Solution:
    """What a solver found.

    Attributes:
        saved: fraction of the all-slow time, re-simulated exactly.
        bound: fraction that no plan exceeds.
        plan: the best valid plan.
        seconds: process CPU time.
        status: the solver's own word.
    """

    saved: float
    bound: float
    plan: Plan
    seconds: float
    status: str


def _coefficients(
    program: Program, device: Device
) -> tuple[list[int], list[int], list[int], list[int]]:
    ratio = 1 - device.slow / device.fast
    comp = [math.floor(c * device.slow / UNIT) for c in program.compute(device)]
    base = [int(b) // UNIT for b in program.traffic]
    gain = [math.ceil(x.size * ratio / UNIT) for x in program.tensors]
    size = [x.size // UNIT for x in program.tensors]
    return comp, base, gain, size


def cp_sat(
    program: Program, device: Device, seconds: float, start: Plan | None = None, seed: int = 0
) -> Solution:
    """Solve with OR-Tools' CP-SAT on one worker.

    Capacity holds op by op; offsets are left out of the model (a relaxation, so the bound holds for
    the game) and found afterwards. The plan is always priced again by the exact evaluator.

    Args:
        program: what is mapped.
        device: what it runs on.
        seconds: CPU time of the solver, on one worker.
        start: a plan to begin with.
        seed: of the solver.
    """
    cp_model = budgeted.library()
    begun = time.process_time()
    comp, base, gain, size = _coefficients(program, device)
    model = cp_model.CpModel()
    ops = len(program.ops)
    load: list[list[Any]] = [[] for _ in range(ops)]
    bus: list[list[Any]] = [[b] for b in base]
    stay: dict[int, Any] = {}
    copy: dict[int, Any] = {}
    ramps: dict[int, dict[int, Any]] = {}
    fetch: dict[int, dict[int, Any]] = {}
    evict: dict[int, dict[int, Any]] = {}
    for i, x in enumerate(program.tensors):
        pages = device.pages(x.size)
        if pages > PAGES or not x.uses:
            continue
        made: Any = None
        chain: Any = None
        parts: dict[int, Any] = {}
        leaves = model.new_bool_var("")
        for n, s in enumerate(program.of_tensor[i]):
            g = program.segments[s]
            stay[s] = model.new_bool_var("")
            copy[s] = model.new_bool_var("")
            model.add_at_most_one(stay[s], copy[s])
            if n == 0:
                if x.born < 0:
                    model.add(stay[s] == 0)
                else:
                    made = chain = stay[s]
                    bus[x.born].append(-gain[i] * stay[s])
                    load[x.born].append(pages * stay[s])
                    if x.output:
                        model.add_implication(stay[s], leaves)
            else:
                before = program.of_tensor[i][n - 1]
                model.add(stay[s] <= stay[before] + copy[before])
                if made is not None:
                    model.add(leaves >= made - stay[s])
                    link = model.new_bool_var("")
                    model.add_implication(link, chain)
                    model.add_implication(link, stay[s])
                    chain = link
            bus[g.use].append(-gain[i] * (stay[s] + copy[s]))
            for t in range(g.since + 1, g.use + 1):
                load[t].append(pages * stay[s])
                if chain is not None:
                    parts[t] = model.new_int_var(0, size[i], "")
                    model.add(parts[t] <= size[i] * chain)
                    bus[t].append(parts[t])
            window = range(g.since + 1, g.use)
            if not window:
                model.add(copy[s] == 0)
                continue
            ramps[s], fetch[s] = {}, {}
            last = copy[s]
            load[g.use].append(pages * copy[s])
            for t in reversed(window):
                r = model.new_bool_var("")
                model.add_implication(r, last)
                last = ramps[s][t] = r
                c = model.new_int_var(0, size[i], "")
                model.add(c <= size[i] * r)
                fetch[s][t] = c
                bus[t].append(c)
                load[t].append(pages * r)
            model.add(sum(fetch[s].values()) == size[i] * copy[s])
        if made is not None:
            evict[i] = parts
            model.add(sum(parts.values()) == size[i] * leaves)
    times = []
    for t in range(ops):
        if load[t]:
            model.add(sum(load[t]) <= PAGES)
        top = 2 * (base[t] + comp[t]) + sum(size) + 1
        v = model.new_int_var(comp[t], top, "")
        model.add(v >= sum(bus[t]))
        times.append(v)
    model.minimize(sum(times))
    if start is not None:
        _hint(model, program, start, stay, copy, ramps)
    solver, status = budgeted.solve(model, seconds, seed)
    whole = program.all_slow(device)
    # The bound of the objective is in units of UNIT bytes over the slow memory's bandwidth.
    lower = max(solver.best_objective_bound, float(sum(comp))) * UNIT / device.slow
    plans = [] if start is None else [start]
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        actions = [
            STAY
            if s in stay and solver.value(stay[s])
            else COPY
            if s in copy and solver.value(copy[s])
            else DROP
            for s in range(len(program.segments))
        ]
        plans.extend(realise(program, device, actions))
    plan = max(plans, key=lambda p: saved(program, device, p), default=Plan())
    return Solution(
        saved(program, device, plan),
        1 - lower / whole,
        plan,
        time.process_time() - begun,
        solver.status_name(status),
    )


def _hint(
    model: Any,
    program: Program,
    start: Plan,
    stay: dict[int, Any],
    copy: dict[int, Any],
    ramps: dict[int, dict[int, Any]],
) -> None:
    chosen: dict[tuple[int, int], tuple[int, Residence]] = {}
    for r in start.residences:
        for n, use in enumerate(r.uses):
            kind = COPY if n == 0 and r.traffic is not None else STAY
            chosen[r.tensor, use] = kind, r
    for s, variable in stay.items():
        g = program.segments[s]
        kind, where = chosen.get((g.tensor, g.use), (DROP, None))
        model.add_hint(variable, kind == STAY)
        model.add_hint(copy[s], kind == COPY)
        for t, ramp in ramps.get(s, {}).items():
            model.add_hint(ramp, kind == COPY and where is not None and t >= where.start)


def realise(program: Program, device: Device, actions: list[int]) -> list[Plan]:
    """Valid plans that play ``actions`` as far as the rules let them.

    One in program order, one tensor by tensor with the most bytes times ops first; copies lie where
    the environment puts them.
    """
    game = Game(program, device)
    game.line(actions)
    plans = [game.plan]
    game.restart()
    weight = [x.size * ((x.uses or (0,))[-1] - max(x.born, 0) + 1) for x in program.tensors]
    for i in np.argsort([-w for w in weight], kind="stable"):
        for segment in program.of_tensor[i]:
            game.play(segment, actions[segment])
    plans.append(game.plan)
    for plan in plans:
        validate(program, device, plan)
    return plans


def relaxation(program: Program, device: Device) -> float:
    """A fraction that no plan exceeds, from the linear relaxation (SciPy's HiGHS, well under a second).

    Variables as in `cp_sat`, without integrality; in the same rounded units.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_matrix

    comp, base, gain, size = _coefficients(program, device)
    ops = len(program.ops)
    cost: list[float] = [1.0] * ops
    low: list[float] = [float(c) for c in comp]
    high: list[float | None] = [None] * ops
    cells: list[tuple[int, int, float]] = []
    limits: list[float] = []

    def variable(most: float | None) -> int:
        cost.append(0.0)
        low.append(0.0)
        high.append(most)
        return len(cost) - 1

    def row(terms: list[tuple[int, float]], limit: float) -> None:
        cells.extend((len(limits), v, c) for v, c in terms)
        limits.append(limit)

    bus: list[list[tuple[int, float]]] = [[(t, -1.0)] for t in range(ops)]
    load: list[list[tuple[int, float]]] = [[] for _ in range(ops)]
    for i, x in enumerate(program.tensors):
        pages = device.pages(x.size)
        if pages > PAGES or not x.uses:
            continue
        made, previous = None, None
        moved: list[tuple[int, float]] = []
        later = []
        for n, s in enumerate(program.of_tensor[i]):
            g = program.segments[s]
            stay = variable(1.0 if n or x.born >= 0 else 0.0)
            window = range(g.since + 1, g.use)
            copy = variable(1.0 if window else 0.0)
            row([(stay, 1), (copy, 1)], 1)
            if previous is not None:
                row([(stay, 1), (previous[0], -1), (previous[1], -1)], 0)
                later.append(stay)
            elif x.born >= 0:
                made = stay
                bus[x.born].append((stay, -gain[i]))
                load[x.born].append((stay, pages))
            bus[g.use] += [(stay, -gain[i]), (copy, -gain[i])]
            load[g.use] += [(stay, pages), (copy, pages)]
            fetched = [(copy, float(size[i]))]
            last = copy
            for t in reversed(window):
                load[t].append((stay, pages))
                ramp, part = variable(1.0), variable(float(size[i]))
                row([(ramp, 1), (last, -1)], 0)
                row([(part, 1), (ramp, -float(size[i]))], 0)
                load[t].append((ramp, pages))
                bus[t].append((part, 1))
                fetched.append((part, -1.0))
                last = ramp
            row(fetched, 0)
            if made is not None:
                for t in range(g.since + 1, g.use + 1):
                    part = variable(float(size[i]))
                    row([(part, 1), (stay, -float(size[i]))], 0)
                    bus[t].append((part, 1))
                    moved.append((part, -1.0))
            previous = stay, copy
        if made is not None:
            if x.output:
                row([(made, float(size[i])), *moved], 0)
            for s in later:
                row([(made, float(size[i])), (s, -float(size[i])), *moved], 0)
    for t in range(ops):
        row(bus[t], -float(base[t]))
        if load[t]:
            row(load[t], PAGES)
    r, c, v = zip(*cells, strict=True)
    matrix = coo_matrix((v, (r, c)), shape=(len(limits), len(cost))).tocsr()
    found = linprog(
        cost, A_ub=matrix, b_ub=limits, bounds=list(zip(low, high, strict=True)), method="highs"
    )
    if found.status != 0:
        raise AllocgymError(f"relaxation: {found.message}")
    # The solver's own tolerance, made part of the bound.
    lower = (found.fun * (1 - 1e-7) - 1e-6) * UNIT / device.slow
    return 1 - float(lower) / program.all_slow(device)
