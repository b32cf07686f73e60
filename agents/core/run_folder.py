"""A run folder: what the run is, what it needs, and checkpoints that are known to be its own.

``run.json`` says what was asked for and holds the run's identity: problem, scenario, back end and its
arguments, seed, agents (of files, a hash of their bytes) and package version, and a hash over all of
these. Agent files are copied into the folder. Beside each checkpoint, ``period-00003.ckpt.json`` says
which run and period it is of, what its bytes hash to, and how far the journal was.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import allocgym
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, WriteError
from allocgym.envs.core.journal import Journal, atomic, dumps, plain, write_json
from allocgym.envs.core.ownership import Owner
from allocgym.envs.core.untrusted import loads

PACKAGES = (
    "allocgym",
    "gymnasium",
    "numpy",
    "simpy",
    "torch",
    "stable-baselines3",
    "sb3-contrib",
    "cma",
    "ray",
)
AGENTS = ("agent", "fallback", "shadow")
IDENTITY = ("problem", "scenario", "backend", "overrides", "seed", *AGENTS)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def new_folder(within: Path) -> Path:
    """Make a folder that nobody else has: named by the time, and a number where that is taken."""
    name = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = within / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise WriteError(
                f"{within}: cannot be written ({error.strerror}); choose a folder that can"
            ) from error
        return folder
    raise AssertionError("unreachable")


def describe_run(folder: Path, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write ``run.json``: what was run, with what, where.

    Args:
        folder: the run's; agent files are copied into it.
        arguments: of the run; names of files may be relative to the current directory.

    Returns:
        The arguments as written: they mean the same from any directory.

    Raises:
        OwnedError: somebody is at work in the folder.
        AllocgymError: it holds a run already.
    """
    with Owner(folder):
        if any((folder / name).exists() for name in ("run.json", "journal.jsonl", "fleet.jsonl")):
            raise AllocgymError(f"{folder}: holds a run already; `allocgym resume {folder}`")
        kept = {name: _absolute(value) for name, value in arguments.items()}
        for role in AGENTS:
            given = arguments.get(role)
            if given is not None and Path(given).is_file():
                kept[role] = _copied(Path(given), folder, role)
        write_run(folder, kept)
    return kept


def write_run(folder: Path, arguments: dict[str, Any]) -> None:
    """Write ``run.json`` with the identity that its arguments come to now."""
    parts = identity(folder, arguments)
    write_json(
        folder / "run.json",
        {
            "arguments": arguments,
            "identity": {"hash": fingerprint(parts), "parts": parts},
            "versions": versions(),
            "machine": {"platform": platform.platform(), "processor": platform.machine()},
            "argv": sys.argv[1:],
        },
    )


def read_run(folder: Path) -> dict[str, Any]:
    """Return the arguments of a run, with the files they name found in its folder.

    Raises:
        AllocgymError: no run folder, or no longer the run that was begun there.
        CorruptFileError: ``run.json`` is damaged.
    """
    folder = Path(folder)
    described = _described(folder)
    if described is None:
        raise AllocgymError(f"{folder}: not a run folder (no run.json)")
    arguments: dict[str, Any] = described["arguments"]
    if "identity" in described:  # not in runs of earlier versions
        compare(folder, described["identity"], identity(folder, arguments))
    if arguments.get("overrides") is None:
        raise AllocgymError(
            f"{folder}: the run was begun from Python; take it up with the same call there"
        )
    return {**arguments, **{role: located(folder, arguments.get(role)) for role in AGENTS}}


def begun_as(folder: Path) -> dict[str, Any] | None:
    """Return the identity a run was begun with; None where there is none (earlier versions).

    Raises:
        CorruptFileError: ``run.json`` is damaged.
    """
    described = _described(Path(folder))
    return None if described is None else described.get("identity")


def identity(folder: Path, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a run the one it is: the arguments that decide it, and the version."""
    parts = {name: plain(arguments.get(name)) for name in IDENTITY}
    for role in AGENTS:
        place = located(folder, arguments.get(role))
        if place is not None and Path(place).is_file():
            parts[role] = f"sha256:{digest(Path(place))}"
    return {**parts, "version": allocgym.__version__}


def compare(folder: Path, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run as another one.

    Raises:
        AllocgymError: a part differs; it is named.
        CorruptFileError: the identity itself was changed.
    """
    parts = begun.get("parts")
    if not isinstance(parts, dict) or begun.get("hash") != fingerprint(parts):
        raise CorruptFileError(
            f"{folder / 'run.json'}: its identity was changed; put the file back as it was written"
        )
    for name, was in parts.items():
        if name in now and now[name] != was:
            raise AllocgymError(
                f"{folder}: the run was begun with {name} {was!r}, this would be {now[name]!r}; put "
                f"back what was there, or begin another run in another folder"
            )


def fingerprint(parts: Mapping[str, Any]) -> str:
    """Return the hash over an identity."""
    return hashlib.sha256(dumps(dict(parts), sort_keys=True).encode()).hexdigest()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def located(folder: Path, name: str | None) -> str | None:
    """Return where an agent's file is, if its name is that of one in the run folder."""
    if name is not None and "/" in name and (Path(folder) / name).is_file():
        return str((Path(folder) / name).resolve())
    return name


def _copied(path: Path, folder: Path, role: str) -> str:
    """Copy an agent file under its own name: reports call the agent by it."""
    with open(path, "rb") as source, atomic(folder / role / path.name, "wb") as file:
        shutil.copyfileobj(source, file)
    return f"{role}/{path.name}"


def _absolute(value: Any) -> Any:
    """Make paths in arguments absolute, also those of a ``name=path``."""
    if isinstance(value, dict):
        return {key: _absolute(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_absolute(v) for v in value]
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        return value
    name, equals, place = value.rpartition("=")
    # A bare word is a name, whatever files happen to lie here.
    named = os.sep in place or bool(Path(place).suffix)
    if named and Path(place).exists():
        return f"{name}{equals}{Path(place).resolve()}"
    return value


def _described(folder: Path) -> dict[str, Any] | None:
    path = folder / "run.json"
    if not path.exists():
        return None
    try:
        described = loads(path.read_text())
        arguments, known = described["arguments"], described.get("identity", {})
        if not isinstance(arguments, dict) or not isinstance(known, dict):
            raise TypeError("no arguments")
        named = [arguments.get(role) for role in AGENTS]
        if not all(isinstance(name, (str, type(None))) for name in named):
            raise TypeError("an agent that is no name")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path}: damaged ({error}); put back the file as it was written"
        ) from error
    found: dict[str, Any] = described
    return found


class Checkpoints:
    """The checkpoints of one run: the newest two, each with the file that vouches for it.

    Args:
        folder: the run's.
        run: hash of the run's identity.
        journal: of the run.
    """

    def __init__(self, folder: Path, run: str, journal: Journal) -> None:
        self.folder = Path(folder) / "checkpoints"
        self.run = run
        self.journal = journal

    def path(self, period: int) -> Path:
        """Return the file of a period."""
        return self.folder / f"period-{period:05d}.ckpt"

    def vouch(self, period: int) -> None:
        """Write down what the checkpoint of a period is, and drop all but it and the one before."""
        path = self.path(period)
        lines = len(self.journal)
        write_json(
            _card(path),
            {
                "run": self.run,
                "period": period,
                "sha256": digest(path),
                "lines": lines,
                "seal": self.journal.seal(lines),
            },
        )
        earlier = [p for p in self._periods() if p < period]
        for other in self._periods():
            if other not in (period, *earlier[-1:]):
                self.drop(other)

    def drop(self, period: int) -> None:
        """Remove a checkpoint."""
        for path in (self.path(period), _card(self.path(period))):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def trusted(self) -> Iterator[tuple[int, Path]]:
        """Yield the checkpoints that are what they say, newest first.

        Raises:
            AllocgymError: the journal lacks lines that were there when a checkpoint was made.
        """
        for period in reversed(self._periods()):
            path = self.path(period)
            if self._vouched(path, period):
                yield period, path

    def _periods(self) -> list[int]:
        found = (path.stem.removeprefix("period-") for path in self.folder.glob("period-*.ckpt"))
        return sorted(int(name) for name in found if name.isdigit())

    def _vouched(self, path: Path, period: int) -> bool:
        if not _card(path).exists():
            # Runs of earlier versions had none; theirs are believed, as they were then.
            return self.journal.old > 0
        try:
            card = loads(_card(path).read_text())
            told = (card["run"], card["period"], card["sha256"])
            lines, seal = int(card["lines"]), card["seal"]
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if told != (self.run, period, digest(path)):
            return False
        if lines > len(self.journal) or seal != self.journal.seal(lines):
            raise AllocgymError(
                f"{self.journal.path}: {lines} lines were written when {path.name} was made, "
                f"{len(self.journal)} are left or they are others; put the journal back, or remove "
                f"{self.folder} to do again what is not in it"
            )
        return True


def _card(path: Path) -> Path:
    return path.with_name(path.name + ".json")
