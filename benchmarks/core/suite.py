"""What every benchmark command has in common: figures, the RESULT line, exit codes, cached cells."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from allocgym.agents.core.deployment import versions
from allocgym.benchmarks.core import engines
from allocgym.benchmarks.core.options import Options
from allocgym.envs.core.journal import write_json

console = Console(width=None if sys.stdout.isatty() else 160)


@dataclasses.dataclass(frozen=True)
class Figure:
    """One measured figure against what was asked.

    Attributes:
        name: what was measured.
        value: the figure.
        target: what was asked, in words.
        met: whether it holds; None where it could not be measured.
        kind: ``"must"`` (checked) or ``"aim"`` (reported).
        detail: anything a reader needs beside it.
    """

    name: str
    value: Any
    target: str
    met: bool | None
    kind: str = "must"
    detail: str = ""


def show(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*[f"{v:.4f}" if isinstance(v, float) else str(v) for v in row])
    console.print(table)


def finish(suite: str, figures: list[Figure], results: Any, begun: float, options: Options) -> int:
    """Print the figures and the RESULT line, keep the JSON, return the exit code."""
    underpowered = options.underpowered
    rows = []
    for f in figures:
        word = {True: "met", False: "MISSED", None: "not measured"}[f.met]
        value = f"{f.value:.6g}" if isinstance(f.value, float) else str(f.value)
        rows.append([f.name, value, f.target, f.kind, word, f.detail])
    show(f"{suite}: figures", ["figure", "value", "target", "kind", "", "detail"], rows)
    if underpowered:
        console.print("underpowered: fewer seeds than stated; aims are not judged")
    payload = {
        "suite": suite,
        "argv": sys.argv[1:],
        "seconds": round(time.time() - begun, 1),
        "machine": {"cores": os.cpu_count()},
        "versions": versions(),
        "underpowered": underpowered,
        "figures": [dataclasses.asdict(f) for f in figures],
        "results": results,
    }
    if options.out is not None:
        file = options.out / f"{suite}.json"
        write_json(file, payload)
        console.print(f"written to {file}")
    missed = [f.name for f in figures if f.kind == "must" and f.met is False]
    brief = {k: payload[k] for k in ("suite", "seconds", "underpowered")}
    brief["figures"] = {f.name: f.value for f in figures}
    brief["missed"] = missed
    print("RESULT " + json.dumps(brief, default=str))
    if options.check and missed:
        print("musts missed: " + "; ".join(missed), file=sys.stderr)
        return 1
    return 0


def run_cells(
    cells: list[dict[str, Any]],
    work: Callable[[dict[str, Any]], dict[str, Any]],
    folder: Path,
    processes: int = 2,
) -> list[dict[str, Any]]:
    """Run independent cells on the command's engine; finished ones are read back.

    Args:
        cells: JSON-serialisable descriptions; the hash of one names its file, so a cell that has
            been run is never run again and a killed suite goes on where it stopped.
        work: a module-level function from description to JSON-serialisable result.
        folder: where results are kept.
        processes: at once, on this machine.
    """
    files = [
        folder / f"{hashlib.sha256(json.dumps(c, sort_keys=True).encode()).hexdigest()[:20]}.json"
        for c in cells
    ]
    todo = [(f, c) for f, c in zip(files, cells, strict=True) if not f.exists()]
    if todo:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("cells", total=len(todo))
            for index, result in engines.current().run(work, [c for _, c in todo], processes):
                file, cell = todo[index]
                write_json(file, {"cell": cell, "result": result})
                bar.advance(task)
    return [json.loads(f.read_text())["result"] for f in files]
