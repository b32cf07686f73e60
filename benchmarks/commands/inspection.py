"""``allocgym list`` and ``allocgym data``: what there is."""

from __future__ import annotations

from rich.table import Table

from allocgym.benchmarks.commands.arguments import console
from allocgym.envs.core import registry


def list_() -> None:
    """List problems, scenarios, back ends, agents, trainers and suites."""
    for entry in registry.entries():
        table = Table.grid(padding=(0, 2))
        agents = [*registry.load(entry.agents), "an agent file (.zip)", "package.module:Class"]
        for label, names in (
            ("gymnasium id", [f"allocgym:{entry.env}"]),
            ("scenarios", registry.load(entry.scenarios)),
            ("back ends", entry.backends),
            ("agents", agents),
            ("trainers", entry.trainers),
            ("suites", registry.load(entry.suites) if entry.suites else []),
        ):
            table.add_row(f"  {label}", ", ".join(names))
        console.print(f"[bold]{entry.id}[/bold]")
        console.print(table)


def data() -> None:
    """Show what public data is used where, and whether it is on this machine."""
    from allocgym.simulators.core import public_data

    table = Table("data", "what", "source", "licence", "used for", "here (sha256)")
    for entry in public_data.CATALOGUE:
        here = public_data.checksum(entry) if public_data.available(entry.path) else "absent"
        table.add_row(entry.path, entry.what, entry.source, entry.licence, entry.used_for, here)
    console.print(table)
    console.print(f"Public data is read from the folder that {public_data.VARIABLE} names.")
