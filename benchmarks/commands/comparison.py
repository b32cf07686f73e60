"""``allocgym evaluate``, ``bench`` and ``demo``: who decides better."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from allocgym.benchmarks.commands.arguments import (
    Problem,
    Scenario,
    Setting,
    console,
    folder,
    names,
    progress,
    settings,
)
from allocgym.envs.core import registry
from allocgym.envs.core.errors import AllocgymError


def evaluate(
    problem: Problem,
    scenario: Scenario = None,
    agents: Annotated[
        str, typer.Option(help="Comma-separated names, agent files or package.module:Class.")
    ] = "",
    seeds: Annotated[int, typer.Option(min=2, max=100_000, help="Paired seeds.")] = 100,
    setting: Setting = None,
) -> None:
    """Compare agents in the simulator on paired seeds, next to the reference, random and the bounds."""
    from allocgym.benchmarks.core import evaluation

    asked = names(agents)
    with progress("evaluating", 1) as told:
        found = evaluation.compare(problem, scenario, asked, seeds, settings(setting), told)
    console.print(evaluation.table(found))


def bench(
    context: typer.Context,
    problem: Problem,
    suite: Annotated[
        str | None, typer.Option(help="Suite of the problem (default: its first).")
    ] = None,
) -> None:
    """Run a benchmark suite (further options go to the suite; --help shows them)."""
    from allocgym.benchmarks.core.options import run

    entry = registry.entry(problem)
    if not entry.suites:
        raise AllocgymError(f"suite: {problem!r} has none")
    suites = registry.load(entry.suites)
    chosen = ["--suite", suite or next(iter(suites))]
    raise typer.Exit(run(problem, suites, [*chosen, *context.args]))


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the demo.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=1, help="Paired seeds.")] = 3,
    engine: Annotated[
        str, typer.Option(help="local, or ray: a cluster of four nodes here.")
    ] = "local",
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster.")] = None,
) -> None:
    """Train an agent in the simulator, deploy it on real training runs, compare, report."""
    from contextlib import nullcontext

    from allocgym.benchmarks.core import engines
    from allocgym.benchmarks.data_mixing.demo import demo as run

    folder(out, "--out")
    own = engine == "ray" and address is None
    with (
        engines.local_cluster() if own else nullcontext(address) as place,
        engines.using(engine, place),
    ):
        run(out, seeds)
