"""A simple search for strategy selection: exact moves of whole forests, memory priced per time."""

from __future__ import annotations

import time

import numpy as np

from allocgym.envs.strategy_selection.instance import StrategyProblem, evaluate

HOT, COLD = 1e6, 1.0
"""Scale of the noise on node costs, first and last."""
Near = list[list[tuple[int, np.ndarray]]]


def descend(
    problem: StrategyProblem, seconds: float, seed: int = 0
) -> tuple[np.ndarray | None, float, int]:
    """Minimise the cost by dynamic programming over random forests.

    Each move draws a random set of nodes whose induced graph is a forest, holds the others, and
    chooses the strategies of the whole forest optimally (min-sum dynamic programming) under node
    costs with noise that dies out. Memory is
    priced per time by multipliers that rise where usage is over the limit and fall where it is not.
    The best feasible choice is kept.

    Args:
        problem: instance.
        seconds: CPU time.
        seed: of the forests.

    Returns:
        The best feasible choice (None where none was met), its cost, and moves made.
    """
    begun = time.process_time()
    rng = np.random.default_rng(seed)
    near = neighbours(problem)
    choice = np.array([int(np.argmin(u)) for u in problem.usages])
    best: np.ndarray | None = None
    lowest, moves = np.inf, 0
    price = np.zeros(problem.times)
    step = 1e-2
    while (used := time.process_time() - begun) < seconds:
        heat = HOT * (COLD / HOT) ** min(1.25 * used / seconds, 1.0)
        ahead = np.concatenate([[0.0], price.cumsum()])
        due = [ahead[s.stop] - ahead[s.start] for s in problem.slots]
        unary = [
            c + d * u + heat * rng.standard_exponential(len(c))
            for c, d, u in zip(problem.costs, due, problem.usages, strict=True)
        ]
        choice = _forest(near, unary, choice, rng)
        moves += 1
        value, peak = evaluate(problem, choice)
        if peak <= problem.limit and value < lowest:
            best, lowest = choice.copy(), value
        load = np.zeros(problem.times)
        for u, s, k in zip(problem.usages, problem.slots, choice, strict=True):
            load[s] += u[k]
        over = load / problem.limit - 1
        step = max(step * 0.997, 1e-4)
        price = np.maximum(price + step * np.where(over > 0, over, 0.2 * np.maximum(over, -0.1)), 0)
    return best, lowest, moves


def neighbours(problem: StrategyProblem) -> Near:
    """The edges at each node, with what they cost from its side."""
    near: Near = [[] for _ in problem.costs]
    merged: dict[tuple[int, int], np.ndarray] = {}
    for i, j, m in problem.edges:
        key, m = ((i, j), m) if i < j else ((j, i), m.T)
        merged[key] = merged.get(key, 0.0) + np.minimum(m, 1e12)
    for (i, j), m in merged.items():
        near[i].append((j, m))
        near[j].append((i, m.T))
    return near


def start(problem: StrategyProblem, moves: int, seed: int = 0) -> np.ndarray:
    """A choice after some moves from the one of least usage, whatever memory it needs."""
    rng = np.random.default_rng(seed)
    near = neighbours(problem)
    unary = [
        np.where((u > problem.limit) & (s.stop > s.start), 1e12, np.minimum(c, 1e12))
        for c, u, s in zip(problem.costs, problem.usages, problem.slots, strict=True)
    ]
    choice = np.array([int(np.argmin(u)) for u in problem.usages])
    for _ in range(moves):
        choice = _forest(near, unary, choice, rng)
    return choice


def _forest(
    near: Near, unary: list[np.ndarray], choice: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Choose optimally on a random forest; the other nodes stay."""
    n = len(near)
    root = list(range(n))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    inside = np.zeros(n, bool)
    for i in rng.permutation(n):
        met: list[int] = []
        for j, _ in near[i]:
            if inside[j]:
                met.append(find(j))
        if len(set(met)) == len(met):
            inside[i] = True
            for r in met:
                root[r] = int(i)
    message: list[np.ndarray] = list(unary)
    parent = np.full(n, -1)
    link: list[np.ndarray | None] = [None] * n
    order: list[int] = []
    seen = np.zeros(n, bool)
    for start in range(n):
        if not inside[start] or seen[start]:
            continue
        stack = [start]
        seen[start] = True
        while stack:
            i = stack.pop()
            order.append(i)
            total = unary[i]
            for j, m in near[i]:
                if not inside[j]:
                    total = total + m[:, choice[j]]
                elif j != parent[i]:
                    parent[j], link[j] = i, m
                    seen[j] = True
                    stack.append(j)
            message[i] = total
    back: list[np.ndarray | None] = [None] * n
    for i in reversed(order):
        edge = link[i]
        if edge is not None:
            joint = edge + message[i][None, :]
            pick: np.ndarray = joint.argmin(1)
            back[i] = pick
            up = int(parent[i])
            message[up] = message[up] + joint[np.arange(len(pick)), pick]
    out = choice.copy()
    for i in order:
        chosen = back[i]
        out[i] = int(message[i].argmin()) if chosen is None else int(chosen[out[parent[i]]])
    return out
