"""Arguments that several commands share, and how they are read."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.untrusted import loads

console = Console(width=None if sys.stdout.isatty() else 160)

Problem = Annotated[str, typer.Argument(help="Problem, such as data-mixing; `allocgym list`.")]
Scenario = Annotated[str | None, typer.Option(help="Scenario; `allocgym list` shows them.")]
Seed = Annotated[int, typer.Option(min=0, max=2**40 - 1, help="Seed.")]
Setting = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="key=value, value as JSON: an argument of the problem, the scenario or the back end.",
    ),
]


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """Read ``--set key=value`` options; a value that is no JSON is text.

    Raises:
        AllocgymError: no ``=``, a key given twice, or one that is no name.
    """
    out: dict[str, Any] = {}
    for pair in pairs or []:
        key, sep, value = pair.partition("=")
        if not sep or not key.isidentifier():
            raise AllocgymError(f"--set: key=value expected, given {pair!r}")
        if key in ("problem", "backend", "scenario", "num_envs"):
            raise AllocgymError(f"--set: {key!r} is not set this way")
        if key in out:
            raise AllocgymError(f"--set: {key!r} is given twice")
        try:
            out[key] = loads(value)
        except ValueError:
            out[key] = value
    return out


def names(text: str) -> list[str]:
    """Split a comma-separated list; empty parts are left out, doubles stand once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def weighted(text: str) -> dict[str, float] | None:
    """Read ``name=number,name=number``; None where nothing is given.

    Raises:
        AllocgymError: a part that is not of that form, or a name given twice.
    """
    out: dict[str, float] = {}
    for part in names(text):
        name, sep, value = (piece.strip() for piece in part.rpartition("="))
        try:
            number = float(value)
        except ValueError:
            number = None
        if not sep or not name or number is None or name in out:
            raise AllocgymError(f"weights: name=number, each name once, expected, given {part!r}")
        out[name] = number
    return out or None


def folder(path: Path, option: str) -> Path:
    """Make a folder that results will be written to, before the work is done.

    Raises:
        AllocgymError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AllocgymError(f"{option}: {path} cannot be made ({error.strerror})") from error
    if not os.access(path, os.W_OK):
        raise AllocgymError(f"{option}: a folder that can be written to expected, given {path}")
    return path


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int, float], None]]:
    """A bar with the time left on stderr, where that is a terminal.

    Args:
        what: is done.
        total: steps.

    Yields:
        A function to be told (steps done, score so far).
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=total)

        def told(done: int, score: float) -> None:
            bar.update(task, completed=done, description=f"{what}, {score:.4g}")

        yield told
