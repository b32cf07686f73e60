"""Agents on the same seeds of one scenario, in the simulator: ``allocgym evaluate``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import Agent, rollout
from allocgym.benchmarks.core.compare import paired
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entry


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Scores of agents on the same seeds.

    Attributes:
        problem: id.
        scenario: name.
        seeds: paired seeds, 0 to ``seeds - 1``.
        reference: agent the others are compared with.
        bounds: agents that see more than others may.
        higher_is_better: of the first score.
        scores: by agent, figures by name, ``(seeds,)`` each; agents are judged by the first.
    """

    problem: str
    scenario: str
    seeds: int
    reference: str
    bounds: tuple[str, ...]
    higher_is_better: bool
    scores: Mapping[str, Mapping[str, np.ndarray]]


def compare(
    problem: str,
    scenario: str | None,
    agents: Sequence[str],
    seeds: int,
    arguments: Mapping[str, Any] | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Comparison:
    """Run agents beside the reference, ``random`` (where there is one) and the bounds.

    Bounds that refuse a scenario, because they bound nothing there, are left out.

    Args:
        problem: id.
        scenario: name (default: the problem's own).
        agents: as `catalogue.make` takes them.
        seeds: paired seeds.
        arguments: of the problem, the scenario and the back end.
        progress: told (agents done, score of the last).

    Raises:
        AllocgymError: a name or an argument that does not exist, told before any agent has run.
    """
    found = entry(problem)
    table = catalogue.names(problem)
    usual = [found.reference, *[n for n in ("random",) if n in table]]
    chosen = list(dict.fromkeys([*usual, *agents, *found.bounds]))
    made = {name: _seated(problem, scenario, name, seeds, arguments or {}) for name in chosen}
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name, (agent, backend) in made.items():
        try:
            rollout(agent, backend, np.arange(seeds))
        except AllocgymError:
            if name in agents or name not in found.bounds:
                raise
            continue  # no bound of this scenario
        figures = agent.problem.scores(agent.memory)
        scores[name] = {k: np.asarray(v, float) for k, v in figures.items()}
        if progress is not None:
            progress(len(scores), float(next(iter(scores[name].values())).mean()))
    spec = backend.spec
    better = agent.problem.higher_is_better
    return Comparison(problem, spec.scenario, seeds, found.reference, found.bounds, better, scores)


def _seated(
    problem: str, scenario: str | None, name: str, seeds: int, arguments: Mapping[str, Any]
) -> tuple[Agent[Any, Any], Any]:
    """An agent and a back end whose problem is the one it plays."""
    backend: Any = None
    given: dict[str, Any] = dict(arguments)
    for _ in range(2):
        backend = build(problem, entry(problem).vector_backend, scenario, seeds, **given)
        agent = catalogue.make(name, backend.problem)
        wanted = {k: v for k, v in agent.plays.items() if k not in given}
        if not wanted:
            break
        given |= wanted
    return agent, backend


def table(comparison: Comparison) -> Table:
    """Agents, best first, each beside the reference: mean difference with its 95 % interval."""
    c = comparison
    names = list(next(iter(c.scores.values())))
    sign = 1 if c.higher_is_better else -1
    first = {agent: figures[names[0]] for agent, figures in c.scores.items()}
    shown = Table(title=f"{c.scenario} ({c.seeds} paired seeds)", title_justify="left")
    for number, column in enumerate(
        ["agent", names[0], f"minus {c.reference}", "95 %", "better/worse", *names[1:]]
    ):
        shown.add_column(column, justify="right" if number else "left")
    for agent in sorted(first, key=lambda a: -sign * first[a].mean()):
        d = paired(first[agent], first[c.reference])
        counts = (d.wins, d.losses) if sign < 0 else (d.losses, d.wins)
        bound = " (bound)" if agent in c.bounds else ""
        shown.add_row(
            agent + bound,
            f"{first[agent].mean():.4f}",
            f"{d.mean:+.4f}",
            f"[{d.low:+.4f}, {d.high:+.4f}]",
            f"{counts[0]}/{counts[1]}",
            *[f"{c.scores[agent][k].mean():.4f}" for k in names[1:]],
        )
    return shown
