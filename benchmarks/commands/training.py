"""``allocgym train``, ``calibrate`` and ``trace``: from runs and models to agents and instances."""

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
    folder,
    progress,
    settings,
    weighted,
)
from allocgym.envs.core import registry
from allocgym.envs.core.errors import AllocgymError, unknown


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
    setting: Setting = None,
) -> None:
    """Train an agent in the simulator and write an agent file.

    Killed, it goes on when it is begun again with the same arguments: what it keeps lies in OUT.training.
    """
    from allocgym.agents.core import training

    entry = registry.entry(problem)
    arguments = settings(setting)
    if engine == "rllib":
        from allocgym.benchmarks.core import engines

        trainer = f"rllib-{(trainer or 'ppo').removeprefix('rllib-')}"
        if trainer not in entry.trainers:
            raise unknown("trainer", trainer, entry.trainers)
        engines.connect(address)
        arguments["runners"] = runners
    elif engine != "local":
        raise unknown("engine", engine, ("local", "rllib"))
    elif runners or address is not None:
        raise AllocgymError("runners, address: only with engine 'rllib'")
    usual = entry.trainers.get(trainer or next(iter(entry.trainers), ""), ("", 1))[1]
    with progress("training", iterations or usual) as told:
        information = training.train(
            problem, out, scenario, trainer, iterations, seed, arguments, told
        )
    console.print(f"wrote {out} ({information['trainer']}, {information['seconds']} s)")


def calibrate(
    problem: Problem,
    out: Annotated[Path, typer.Option(help="Where to write fits and recorded runs.")] = Path(
        "runs/calibration"
    ),
    processes: Annotated[int, typer.Option(min=1)] = 2,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per pilot.")] = 2,
    ratios: Annotated[
        Path | None, typer.Option(help="Your runs: CSV, a mixture a row (with --metrics).")
    ] = None,
    metrics: Annotated[
        Path | None, typer.Option(help="Your runs: CSV, what was measured of each.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(help="Your data: JSON of token counts, natural shares, families.")
    ] = None,
    phases: Annotated[bool, typer.Option(help="Columns of --ratios are domain@phase.")] = False,
    runs: Annotated[
        Path | None, typer.Option(help="A folder of run folders, instead of the two tables.")
    ] = None,
    each_metric: Annotated[
        bool, typer.Option(help="Held-out errors of every metric, not of families alone.")
    ] = False,
) -> None:
    """Fit the simulator's law to your runs, or record pilots of the real back end and fit it to those."""
    if ratios is None and metrics is None and runs is None:
        if tokens is not None or phases or each_metric:
            raise AllocgymError("tokens, phases, each-metric: only with --ratios or --runs")
        _tool(problem, "calibrate")(folder(out, "--out"), processes, seeds)
        return
    _tool(problem, "fit")(
        folder(out, "--out"),
        ratios=ratios,
        metrics=metrics,
        tokens=tokens,
        phases=phases,
        runs=runs,
        each_metric=each_metric,
    )


def recommend(
    fit: Annotated[Path, typer.Argument(help="A fit that `allocgym calibrate --ratios` wrote.")],
    weights: Annotated[
        str, typer.Option(help="Of families, such as code=2,math=1 (default: equal).")
    ] = "",
    run_tokens: Annotated[
        float | None, typer.Option(help="Tokens of the run to come (default: data not limited).")
    ] = None,
    epochs: Annotated[float, typer.Option(help="Times that data may be repeated.")] = 4.0,
    kl: Annotated[float, typer.Option(help="Price of a nat of distance to the prior.")] = 0.05,
    pessimism: Annotated[
        float, typer.Option(help="Standard deviations of the fits that the gain is lowered by.")
    ] = 1.645,
    out: Annotated[Path | None, typer.Option(help="JSON or CSV file to write.")] = None,
    anyway: Annotated[bool, typer.Option(help="Answer where the fit cannot rank.")] = False,
    problem: Annotated[str, typer.Option(help="Problem that the fit is of.")] = "data-mixing",
) -> None:
    """Recommend a mixture by a law fitted to your runs, within its data, at its surest."""
    wanted = {"kl_weight": kl, "run_tokens": run_tokens, "epochs": epochs, "pessimism": pessimism}
    _tool(problem, "recommend")(fit, weighted(weights), out, anyway, **wanted)


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
    console.print(_tool(problem, "trace")(model, out, mode), highlight=False, soft_wrap=True)


def _tool(problem: str, name: str) -> Any:
    tools = registry.entry(problem).tools
    if name not in tools:
        able = [e.id for e in registry.entries() if name in e.tools]
        raise AllocgymError(f"{name}: {problem!r} has none; {', '.join(able)} have")
    return registry.load(tools[name])
