"""The command line of ``allocgym``. Heavy imports happen inside the command that needs them."""

from __future__ import annotations

import typer

from allocgym.benchmarks.commands import comparison, deployment, inspection, training

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Who gets how much of a training budget: train, deploy and compare allocation agents.",
)
app.command("list")(inspection.list_)
app.command()(inspection.data)
app.command()(training.train)
app.command()(training.calibrate)
app.command()(training.recommend)
app.command()(training.trace)
app.command()(comparison.evaluate)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(
    comparison.bench
)
app.command()(comparison.demo)
app.command()(deployment.deploy)
app.command()(deployment.resume)
app.command()(deployment.report)
