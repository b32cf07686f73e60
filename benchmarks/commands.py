"""The commands of ``allocgym``. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from allocgym.benchmarks.core.front import front, fronts
from allocgym.benchmarks.core.main import run as run_suite
from allocgym.envs.core import registry
from allocgym.envs.core.errors import AllocgymError, unknown

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Who gets how much of a training budget: train, deploy and compare allocation agents.",
)  # fmt: skip
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
    seed: Seed = 0,
    override: Override = None,
) -> None:
    """Train an agent in the simulator and write an agent file."""
    desk = front(problem)
    chosen = trainer or next(iter(desk.trainers))
    if chosen not in desk.trainers:
        raise unknown("trainer", chosen, desk.trainers)
    information = desk.train(
        out, scenario or desk.scenario, chosen, iterations or desk.trainers[chosen], seed,
        _overrides(override),
    )  # fmt: skip
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
    agent: Annotated[str, typer.Option(help="Name or agent file.")] = "uniform",
    backend: Annotated[str, typer.Option(help="Back end to spend on.")] = "real",
    scenario: Scenario = None,
    folder: Annotated[Path | None, typer.Option(help="Run folder (default runs/<time>).")] = None,
    seed: Seed = 0,
    fallback: Annotated[
        str | None, typer.Option(help="Agent that takes over where the other fails.")
    ] = None,
    max_change: Annotated[float | None, typer.Option(help="Largest change of a share.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after charged seconds.")] = None,
    max_cost: Annotated[float | None, typer.Option(help="Stop after budget units.")] = None,
    shadow: Annotated[
        str | None, typer.Option(help="This agent acts; the other only proposes.")
    ] = None,
    override: Override = None,
) -> None:
    """Run an agent on a back end: journalled, guarded, resumable."""
    desk = front(problem)
    folder = folder or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    arguments = {
        "problem": problem, "agent": agent, "backend": backend,
        "scenario": scenario or desk.scenario, "seed": seed, "fallback": fallback or desk.fallback,
        "max_change": max_change, "max_seconds": max_seconds,
        "max_cost": max_cost, "shadow": shadow, "overrides": _overrides(override),
    }  # fmt: skip
    if (folder / "journal.jsonl").exists():
        raise AllocgymError(f"{folder}: holds a run already; `allocgym resume {folder}`")
    from allocgym.agents.core.deployment import describe_run

    _check_agent(arguments)
    folder.mkdir(parents=True, exist_ok=True)
    describe_run(folder, arguments)
    _deploy(folder, arguments)


@app.command()
def resume(folder: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Go on with a run that was killed."""
    if not (folder / "run.json").exists():
        raise AllocgymError(f"{folder}: not a run folder (no run.json)")
    _deploy(folder, json.loads((folder / "run.json").read_text())["arguments"])


def _check_agent(arguments: dict[str, Any]) -> None:
    desk = front(arguments["problem"])
    problem: Any = registry.make_problem(arguments["problem"])
    for name in (arguments["agent"], arguments["fallback"], arguments["shadow"]):
        if name is not None:
            desk.make_agent(name, problem)


def _deploy(folder: Path, a: dict[str, Any]) -> None:
    from allocgym.agents.core.deployment import Deployment
    from allocgym.agents.core.guards import Guards
    from allocgym.agents.core.report import deployment_report

    desk = front(a["problem"])
    problem: Any = registry.make_problem(a["problem"])
    made = registry.make_backend(problem, a["backend"], scenario=a["scenario"], **a["overrides"])
    guards = Guards(
        fallback=desk.make_agent(a["fallback"], problem), max_change=a["max_change"],
        max_seconds=a["max_seconds"], max_cost=a["max_cost"],
    )  # fmt: skip
    incumbent = desk.make_agent(a["shadow"], problem) if a["shadow"] else None
    names = made.spec.claimants

    def progress(period: int, horizon: int, keyed: Any, outcome: Any) -> None:
        text = desk.status(made.spec, keyed, outcome)
        console.print(f"period {period}/{horizon}  {text}", highlight=False)
        for note in keyed.interventions:
            console.print(f"  guard: {note}")

    live = Deployment(
        made, desk.make_agent(a["agent"], problem), folder, a["seed"], guards, incumbent, progress
    )
    controller = live.run()
    if live.stopped:
        console.print(f"stopped: {live.stopped}")
    report = deployment_report(controller, folder, names, made.ledger.to_json())
    memory = controller.agent.memory
    console.print(f"objective {float(memory.objective[0]):.4f}; report: {report}")
    controller.journal.close()
    made.close()


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
    if not (folder / "ledger.json").exists():
        raise AllocgymError(f"{folder}: not a finished run; `allocgym resume {folder}` first")
    _deploy(folder, json.loads((folder / "run.json").read_text())["arguments"])


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
) -> None:
    """Train an agent in the simulator, deploy it on real training runs, compare, report."""
    from allocgym.benchmarks.data_mixing.demo import demo as run

    run(out, seeds)
