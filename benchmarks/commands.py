"""The commands of ``allocgym``. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from allocgym.benchmarks.core.front import front, fronts
from allocgym.benchmarks.core.main import run as run_suite
from allocgym.envs.core import registry
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.journal import write_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Who gets how much of a training budget: train, deploy and compare allocation agents.",
)
console = Console()

Problem = Annotated[str, typer.Argument(help="Problem, such as data-mixing.")]
Scenario = Annotated[str | None, typer.Option(help="Scenario; `allocgym list` shows them.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed.")]
Override = Annotated[
    list[str] | None, typer.Option("--set", help="key=value of the back end, value as JSON.")
]


def _overrides(pairs: list[str] | None) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for pair in pairs or []:
        key, sep, value = pair.partition("=")
        if not sep:
            raise AllocgymError(f"--set: key=value expected, given {pair!r}")
        try:
            out[key] = json.loads(value)
        except json.JSONDecodeError:
            out[key] = value
    return out


@app.command("list")
def list_() -> None:
    """List problems, scenarios, back ends and agents."""
    for name in fronts():
        desk = front(name)
        table = Table.grid(padding=(0, 2))
        for label, entries in (
            ("gymnasium id", [f"allocgym:{i}" for i in desk.env_ids]),
            ("scenarios", desk.scenarios()),
            ("back ends", registry.backends(name)),
            ("agents", [*desk.agents(), "or an agent file (.zip)"]),
            ("trainers", desk.trainers),
            ("suites", desk.suites),
        ):
            table.add_row(f"  {label}", ", ".join(entries))
        console.print(f"[bold]{name}[/bold]")
        console.print(table)


@app.command()
def train(
    problem: Problem,
    scenario: Scenario = None,
    out: Annotated[Path, typer.Option(help="Agent file to write.")] = Path("agent.zip"),
    trainer: Annotated[
        str | None, typer.Option(help="`allocgym list` shows them (default: the first).")
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Iterations of the trainer (default: its own).")
    ] = None,
    engine: Annotated[str, typer.Option(help="local, or rllib: trainers of that name.")] = "local",
    runners: Annotated[
        int, typer.Option(min=0, help="rllib: remote environment runners (0: in this process).")
    ] = 0,
    address: Annotated[str | None, typer.Option(help="rllib: of a running Ray cluster.")] = None,
    seed: Seed = 0,
    override: Override = None,
) -> None:
    """Train an agent in the simulator and write an agent file.

    With engine rllib a killed training goes on from its newest checkpoint (OUT.checkpoint).
    """
    desk = front(problem)
    chosen = trainer or next(iter(desk.trainers))
    if engine == "rllib":
        chosen = f"rllib-{(trainer or 'ppo').removeprefix('rllib-')}"
    elif engine != "local":
        raise unknown("engine", engine, ("local", "rllib"))
    if chosen not in desk.trainers:
        raise unknown("trainer", chosen, desk.trainers)
    changes = _overrides(override)
    if engine == "rllib":
        from allocgym.benchmarks.core import engines

        engines.connect(address)
        changes["runners"] = runners
    elif runners or address is not None:
        raise AllocgymError("runners, address: only with engine 'rllib'")
    information = desk.train(
        out, scenario or desk.scenario, chosen, iterations or desk.trainers[chosen], seed, changes
    )
    console.print(f"wrote {out} ({information['trainer']}, {information['seconds']} s)")


@app.command()
def evaluate(
    problem: Problem,
    scenario: Scenario = None,
    agents: Annotated[str, typer.Option(help="Comma-separated names or agent files.")] = "uniform",
    seeds: Annotated[int, typer.Option(min=2, help="Paired seeds.")] = 100,
    override: Override = None,
) -> None:
    """Compare agents in the simulator on paired seeds, next to uniform and the oracles."""
    desk = front(problem)
    asked = [a.strip() for a in agents.split(",")]
    desk.evaluate(scenario or desk.scenario, asked, seeds, _overrides(override))


@app.command()
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
    override: Override = None,
) -> None:
    """Run an agent on a back end: journalled, guarded, resumable."""
    from allocgym.agents.core.run_folder import describe_run, new_folder
    from allocgym.benchmarks.core import deployment as deploying

    desk = front(problem)
    agent = agent or ("uniform" if "uniform" in desk.agents() else desk.fallback)
    there = registry.backends(problem)
    backend = backend or next(b for b in ("real", "torch", "twin", *there) if b in there)
    if engine not in ("local", "ray"):
        raise unknown("engine", engine, ("local", "ray"))
    arguments = {
        "problem": problem,
        "agent": agent,
        "backend": backend,
        "scenario": scenario or desk.scenario,
        "seed": seed,
        "fallback": fallback or desk.fallback,
        "max_change": max_change,
        "max_seconds": max_seconds,
        "max_cost": max_cost,
        "max_think": max_think,
        "shadow": shadow,
        "overrides": _overrides(override),
    }
    deploying.check_agents(arguments)
    folder = folder or new_folder(Path("runs"))
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


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(help="Run folder.")],
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster (fleets).")] = None,
) -> None:
    """Go on with a run, or a fleet of runs, that was killed."""
    if (folder / "fleet.json").exists():
        described = json.loads((folder / "fleet.json").read_text())
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


@app.command()
def calibrate(
    problem: Problem,
    out: Annotated[Path, typer.Option(help="Where to write fits and recorded runs.")] = Path(
        "runs/calibration"
    ),
    processes: Annotated[int, typer.Option(min=1)] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per pilot.")] = 2,
) -> None:
    """Record pilot runs of the real back end and fit the simulator's law to them."""
    front(problem).calibrate(out, processes, seeds)


@app.command()
def trace(
    problem: Problem,
    model: Annotated[
        str,
        typer.Argument(
            help="module:callable that returns (model, example inputs), or a bundled name."
        ),
    ],
    out: Annotated[Path, typer.Option(help="JSON file to write.")] = Path("trace.json"),
    mode: Annotated[
        str, typer.Option(help="forward, or training (forward and backward pass).")
    ] = "forward",
) -> None:
    """Record a PyTorch model as an instance of a problem."""
    console.print(front(problem).trace(model, out, mode), highlight=False, soft_wrap=True)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    problem: Problem,
    suite: Annotated[str, typer.Option(help="Suite of the problem.")] = "simulator",
) -> None:
    """Run a benchmark suite (further options go to the suite)."""
    desk = front(problem)
    raise typer.Exit(run_suite(desk.package, desk.suites, ["--suite", suite, *context.args]))


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write the report of a run again from its journal."""
    from allocgym.agents.core.run_folder import read_run
    from allocgym.benchmarks.core import deployment as deploying

    _say_result(deploying.report(folder, read_run(folder)))


@app.command()
def data() -> None:
    """Show what public data is used where, and whether it is on this machine."""
    from allocgym.simulators.core import public_data

    table = Table("data", "what", "source", "licence", "used for", "here (sha256)")
    for entry in public_data.CATALOGUE:
        here = public_data.checksum(entry) if public_data.available(entry.path) else "absent"
        table.add_row(entry.path, entry.what, entry.source, entry.licence, entry.used_for, here)
    console.print(table)
    console.print(f"Public data is read from the folder that {public_data.VARIABLE} names.")


@app.command()
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

    own = engine == "ray" and address is None
    with (
        engines.local_cluster() if own else nullcontext(address) as place,
        engines.using(engine, place),
    ):
        run(out, seeds)
