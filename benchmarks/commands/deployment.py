"""``allocgym deploy``, ``resume`` and ``report``: agents on runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from allocgym.benchmarks.commands.arguments import (
    Problem,
    Scenario,
    Seed,
    Setting,
    console,
    settings,
)
from allocgym.benchmarks.commands.arguments import folder as usable
from allocgym.envs.core import registry
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.journal import write_json
from allocgym.envs.core.untrusted import loads


def deploy(
    problem: Problem,
    agent: Annotated[
        str | None,
        typer.Option(help="Name or agent file (default: uniform, or the problem's own)."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Back end to spend on (default: real, else torch, else twin)."),
    ] = None,
    scenario: Scenario = None,
    folder: Annotated[Path | None, typer.Option(help="Run folder (default: a new one).")] = None,
    seed: Seed = 0,
    fallback: Annotated[
        str | None, typer.Option(help="Agent that takes over where the other fails.")
    ] = None,
    max_change: Annotated[float | None, typer.Option(help="Largest change of a share.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after charged seconds.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop after budget units.")] = None,
    max_think: Annotated[
        float | None, typer.Option(help="Seconds an agent may think before the fallback acts.")
    ] = None,
    shadow: Annotated[
        str | None, typer.Option(help="This agent acts; the other only proposes.")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or ray: actors on a cluster.")] = "local",
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Ray: runs at once, seeds from --seed.")] = 1,
    fleet_cost: Annotated[
        int | None, typer.Option(min=1, help="Ray: budget units of all runs together.")
    ] = None,
    setting: Setting = None,
) -> None:
    """Run an agent on a back end: journalled, guarded, resumable."""
    from allocgym.agents.core.run_folder import describe_run, new_folder
    from allocgym.benchmarks.core import deployment as deploying

    entry = registry.entry(problem)
    agent, backend = agent or entry.fallback, backend or entry.real_backend
    if engine not in ("local", "ray"):
        raise unknown("engine", engine, ("local", "ray"))
    if engine == "local" and (runs > 1 or address is not None or fleet_cost is not None):
        raise AllocgymError("runs, address, fleet-cost: only with engine 'ray'")
    arguments = {
        "problem": problem,
        "agent": agent,
        "backend": backend,
        "scenario": scenario or entry.scenario,
        "seed": seed,
        "fallback": fallback or entry.fallback,
        "max_change": max_change,
        "max_seconds": max_seconds,
        "max_cost": max_cost,
        "max_think": max_think,
        "shadow": shadow,
        "overrides": settings(setting),
    }
    deploying.check(arguments)
    folder = usable(folder, "--folder") if folder else new_folder(Path("runs"))
    if engine == "local":
        describe_run(folder, arguments)
        _deploy(folder)
        return
    if (folder / "run.json").exists() or (folder / "fleet.json").exists():
        raise AllocgymError(f"{folder}: holds a run already; `allocgym resume {folder}`")
    if Path(agent).exists():
        arguments["agent"] = str(Path(agent).resolve())
    fleet = {f"run-{i}": {**arguments, "seed": seed + i} for i in range(runs)}
    write_json(folder / "fleet.json", {"runs": fleet, "units": fleet_cost})
    _fleet(folder, fleet, address, fleet_cost)


def _fleet(
    folder: Path, runs: dict[str, dict[str, Any]], address: str | None, units: int | None
) -> None:
    from allocgym.benchmarks.core import fleet

    for name, result in fleet.deploy(folder, runs, address, units).items():
        console.print(f"{name}: {result['periods']} periods", highlight=False)
        _say_result(result)


def resume(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster (fleets).")] = None,
) -> None:
    """Go on with a run, or a fleet of runs, that was killed."""
    if (folder / "fleet.json").exists():
        described = loads((folder / "fleet.json").read_text())
        _fleet(folder, described["runs"], address, described["units"])
        return
    _deploy(folder)


def _deploy(folder: Path) -> None:
    from allocgym.agents.core.run_folder import read_run
    from allocgym.benchmarks.core import deployment as deploying

    arguments = read_run(folder)
    _say_result(deploying.run(folder, arguments, lambda line: console.print(line, highlight=False)))


def _say_result(result: dict[str, Any]) -> None:
    if result["stopped"]:
        console.print(f"stopped: {result['stopped']}")
    console.print(f"objective {result['objective']:.4f}; report: {result['report']}")


def report(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write the report of a run again from its journal."""
    from allocgym.agents.core.run_folder import read_run
    from allocgym.benchmarks.core import deployment as deploying

    _say_result(deploying.report(folder, read_run(folder)))
