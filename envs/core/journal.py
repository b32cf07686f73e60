"""Files that survive a kill: an append-only journal, and whole files replaced atomically."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from allocgym.envs.core.errors import CorruptFileError


@contextlib.contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears at ``path`` whole, or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    with atomic(path) as file:
        json.dump(data, file, indent=1)
        file.write("\n")


class Journal:
    """One JSON object a line, each with its checksum, each on disk before ``append`` returns.

    A line that a kill tore off at the end is recognised and dropped; damage anywhere else is an
    error, because silently losing the middle of a run would falsify it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.entries = self._recover() if self.path.exists() else []
        self._file = open(self.path, "a", encoding="utf-8")

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry durably."""
        text = json.dumps(entry, separators=(",", ":"))
        self._file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries.append(entry)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _recover(self) -> list[dict[str, Any]]:
        entries = []
        good = 0
        data = self.path.read_bytes()
        lines = data.split(b"\n")
        for number, line in enumerate(lines):
            if number == len(lines) - 1:
                break  # what follows the last newline: nothing, or a torn line
            checksum, _, text = line.partition(b" ")
            if checksum != f"{zlib.crc32(text):08x}".encode():
                if number == len(lines) - 2 and not lines[-1]:
                    break
                raise CorruptFileError(f"{self.path}: line {number + 1} is damaged")
            entries.append(json.loads(text))
            good += len(line) + 1
        if good < len(data):
            os.truncate(self.path, good)
        return entries
