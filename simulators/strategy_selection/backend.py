"""Strategy selection: generated networks or the contest's instances; the exact evaluator as back end."""

from __future__ import annotations

import functools
import gzip
import json
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.strategy_selection.instance import FORBIDDEN, StrategyProblem, from_json
from allocgym.envs.strategy_selection.problem import (
    COLUMNS,
    SelectionOutcome,
    StrategyChoice,
    StrategySelection,
    Walk,
)
from allocgym.simulators.core import public_data

SCENARIOS = ("train", "test", "level", "iopddl")
INSTANCES = ("B", "G", "V")
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


class SelectionSimulator(Backend[SelectionOutcome, StrategyChoice]):
    """Walks through instances.

    Args:
        problem: `StrategySelection`.
        scenario: of `SCENARIOS`.
        num_envs: environments in the batch.
        instance: one of the contest's instances instead of a draw (scenario ``"iopddl"``).
    """

    changing = ("walks",)

    def __init__(
        self,
        problem: StrategySelection,
        scenario: str = "train",
        num_envs: int = 1,
        instance: str | None = None,
    ) -> None:
        if scenario not in SCENARIOS:
            raise unknown("scenario", scenario, SCENARIOS)
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        if instance is not None and scenario != "iopddl":
            raise AllocgymError(f"instance: scenario 'iopddl' expected, given {scenario!r}")
        self.scenario, self._bank = scenario, []
        if scenario == "iopddl":
            fitting = INSTANCES if problem.n_max >= 178 else INSTANCES[:2]
            self._bank = [public(name) for name in ([instance] if instance else fitting)]
        nodes = 60 if scenario == "test" else 24
        most = max((len(c) for p in self._bank for c in p.costs), default=3 * LAYOUTS)
        if most > problem.n_max:
            raise AllocgymError(f"n_max: {most} strategies, {problem.n_max} rows; raise n_max")
        self._nodes = nodes
        spec = Spec(
            problem=problem.id,
            scenario=scenario,
            backend="twin",
            claimants=tuple(f"strategy-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=max((len(p.costs) for p in self._bank), default=nodes),
            batch_size=num_envs,
            capabilities=frozenset({"oracle", "state"}),
            details={"instance": instance},
        )
        super().__init__(spec, problem)
        self.walks: list[Walk] = []

    def _draw(self, seed: int) -> StrategyProblem:
        if not self._bank:
            return generated(seed, self._nodes, self.scenario == "level")
        drawn = randomness.uniform(randomness.stream(np.array([seed]), "instance"), 0)[0, 0]
        return self._bank[int(drawn * len(self._bank))]

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> SelectionOutcome:
        old: list[Any] = list(self.walks) or [None] * len(seeds)
        self.walks = [
            Walk(self._draw(int(seed))) if fresh or walk is None else walk
            for seed, fresh, walk in zip(seeds, where, old, strict=True)
        ]
        return self._tell(np.zeros(len(seeds), np.int64))

    def _spend(self, decision: StrategyChoice) -> SelectionOutcome:
        on = np.array([not w.done for w in self.walks]) & (decision.pick >= 0)
        for row in np.flatnonzero(on):
            self.walks[row].play(int(decision.pick[row]))
            if self.walks[row].done:
                self.walks[row].verify()
        return self._tell(on.astype(np.int64))

    def _tell(self, spent: np.ndarray) -> SelectionOutcome:
        batch, n = len(spent), self.spec.n_max
        table = np.zeros((batch, n, len(COLUMNS)))
        legal, present = np.zeros((batch, n), bool), np.zeros((batch, n), bool)
        for row, w in enumerate(self.walks):
            if w.done:
                present[row, 0] = legal[row, 0] = True
                continue
            found, fine = w.table()
            table[row, : len(found)] = found
            legal[row, : len(found)] = fine
            present[row, : len(found)] = True
        return SelectionOutcome(
            spent=spent,
            seconds=np.zeros(batch),
            ready=present.copy(),
            valid=np.ones(batch, bool),
            failure=np.zeros(batch, np.int64),
            done=np.array([w.done for w in self.walks]),
            table=table,
            legal=legal,
            present=present,
            step=np.array([w.step for w in self.walks]),
            total=np.array([len(w.choice) for w in self.walks]),
            cost=np.array([w.cost for w in self.walks]),
            broken=np.array([w.broken for w in self.walks]),
        )

    def _budget(self) -> np.ndarray:
        return np.array([len(w.choice) for w in self.walks], np.int64)
