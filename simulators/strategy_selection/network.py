"""Networks whose strategies are selected: generated ones, and the contest's."""

from __future__ import annotations

import functools
import gzip
import json

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import unknown
from allocgym.envs.strategy_selection.instance import FORBIDDEN, StrategyProblem, from_json
from allocgym.simulators.core import public_data
from allocgym.simulators.strategy_selection.scenario import INSTANCES

LAYOUTS = 4
"""Ways to lay a tensor out over a mesh: 0 is fully sharded, the last one replicated."""


def generated(seed: int, nodes: int = 24, level: bool = False) -> StrategyProblem:
    """A random network of operators and its strategies.

    An operator reads the one before it and sometimes an earlier one (a residual). A strategy is a
    layout of what it writes: the more it is sharded the less memory it takes and the more it has to
    communicate. An edge costs nothing between equal layouts and what resharding moves
    otherwise; some changes of layout are forbidden, never those to or from fully sharded. Fully sharded
    everywhere is therefore allowed, and the limit lies between its peak and that of full replication.

    Args:
        seed: of everything.
        nodes: operators.
        level: the control: every strategy costs the same and edges cost nothing.
    """
    rng = randomness.generator(seed, "selection")
    size = np.exp(rng.normal(0, 1, nodes)) * 1e6
    last = np.arange(nodes) + 1
    edges = []
    for j in range(1, nodes):
        sources = {j - 1}
        if j > 3 and rng.random() < 0.35:
            sources.add(int(rng.integers(max(j - 8, 0), j - 1)))
        for i in sources:
            last[i] = max(last[i], j)
            edges.append((i, j))
    kept, costs, usages = [], [], []
    for i in range(nodes):
        layouts = [0, *sorted(rng.permutation(np.arange(1, LAYOUTS))[: rng.integers(1, LAYOUTS)])]
        kinds = np.repeat(layouts, rng.integers(1, 4, len(layouts)))
        share = kinds / (LAYOUTS - 1)
        noise = rng.uniform(0.7, 1.3, len(kinds))
        kept.append(kinds)
        costs.append(
            size[i] / 10 * (1.2 - share) * noise if not level else np.full(len(kinds), 1e5)
        )
        usages.append(size[i] * (0.125 + 0.875 * share) * rng.uniform(1, 1.1, len(kinds)))
    joined = []
    for i, j in edges:
        a, b = kept[i][:, None], kept[j][None]
        move = size[i] * np.abs(a - b) / LAYOUTS * rng.uniform(0.5, 1.5)
        never = (rng.random((LAYOUTS, LAYOUTS)) < 0.3)[a, b] & (a != b) & (a > 0) & (b > 0)
        joined.append((i, j, np.where(never, 10 * FORBIDDEN, 0.0 if level else move)))
    # A node is alive from its own time to its last reader's; fully sharded has the least peak.
    slots = tuple(slice(i, int(last[i]) + 1) for i in range(nodes))
    low, high = np.zeros(nodes + 1), np.zeros(nodes + 1)
    for i, s in enumerate(slots):
        first = usages[i][kept[i] == 0]
        low[s] += first.min()
        high[s] += usages[i].max()
    sharded = float(low.max())
    limit = sharded + rng.uniform(0.01, 0.08) * (float(high.max()) - sharded)
    return StrategyProblem(
        f"network-{seed}-{nodes}",
        tuple(costs),
        tuple(usages),
        slots,
        tuple(joined),
        limit,
        nodes + 1,
    )


@functools.cache
def public(name: str) -> StrategyProblem:
    """An instance of the contest (B, G or V)."""
    if name not in INSTANCES:
        raise unknown("instance", name, INSTANCES)
    file = public_data.path(f"memory/iopddl/asplos-2025-iopddl-{name}.json.gz")
    with gzip.open(file) as stream:
        return from_json(json.load(stream))
