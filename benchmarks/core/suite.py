"""What every benchmark command has in common: figures, the RESULT line, exit codes, cached cells."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import allocgym
from allocgym.agents.core.run_folder import digest, fingerprint, versions
from allocgym.benchmarks.core import engines
from allocgym.benchmarks.core.options import Options
from allocgym.envs.core.journal import dumps, write_json
from allocgym.envs.core.untrusted import loads

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
    """Run independent cells (an experiment each) on the command's engine; finished ones are read back.

    A cell that has been run is not run again, and a killed suite goes on where it stopped. The file of
    a cell says what decided its result: the version of the package, the work, the description, and the
    content of files named in that. One that says something else, or is damaged, is run again.

    Args:
        cells: JSON-serialisable descriptions.
        work: a module-level function from description to JSON-serialisable result.
        folder: where results are kept.
        processes: at once, on this machine.
    """
    keys = [_key(work, cell) for cell in cells]
    files = [folder / f"{fingerprint(key)[:20]}.json" for key in keys]
    results = {f: _kept(f, key) for f, key in zip(files, keys, strict=True)}
    # Once each, also where two cells are the same.
    missing = {f: n for n, f in enumerate(files) if results[f] is None}
    if missing:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task("cells", total=len(missing))
            todo = list(missing.items())
            described = [cells[n] for _, n in todo]
            for index, result in engines.current().run(work, described, processes):
                file, number = todo[index]
                write_json(file, {"key": keys[number], "result": result})
                results[file] = _kept(file, keys[number])
                bar.advance(task)
    return [results[f] or {} for f in files]


def _key(work: Callable[..., Any], cell: dict[str, Any]) -> dict[str, Any]:
    """Return all that decides what a cell comes to."""
    name = f"{work.__module__}:{work.__qualname__}"
    files = {text: digest(Path(text)) for text in sorted(set(_texts(cell))) if _is_file(text)}
    made = {"version": allocgym.__version__, "work": name, "cell": cell, "files": files}
    key: dict[str, Any] = loads(dumps(made))
    return key


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _is_file(text: str) -> bool:
    """Whether a text names a file; a bare word is a name, whatever files happen to lie here."""
    named = os.sep in text or bool(Path(text).suffix)
    return named and len(text) < 4096 and "\0" not in text and os.path.isfile(text)


def _kept(file: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Read a cell back; None where it has not been run, or the file is not what its name says."""
    try:
        held = loads(file.read_text())
        return dict(held["result"]) if held["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
