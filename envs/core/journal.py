"""Files that survive a kill: an append-only journal, and whole files replaced atomically.

Every JSON that is written here can be read by anybody: numpy's numbers become plain ones, and what is
not finite becomes one of the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which
`Record.from_json` reads back as the numbers they are.
"""

from __future__ import annotations

import array
import contextlib
import json
import math
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from allocgym.envs.core.errors import AllocgymError, CorruptFileError, WriteError
from allocgym.envs.core.ownership import Owner
from allocgym.envs.core.untrusted import loads


def plain(value: Any) -> Any:
    """Turn numpy's scalars and arrays into numbers and lists, and what is not finite into strings."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def dumps(data: Any, **arguments: Any) -> str:
    """Write JSON by the rule of this module.

    Raises:
        AllocgymError: something that is no number, text, list or dictionary.
    """
    try:
        return json.dumps(data, allow_nan=False, default=_unpacked, **arguments)
    except ValueError:
        # Rare enough that looking at every value is left for here.
        return json.dumps(plain(data), allow_nan=False, **arguments)
    except TypeError as error:
        raise AllocgymError(f"JSON: numbers, texts, lists and dictionaries, but {error}") from error


def _failed(path: Path, error: OSError) -> WriteError:
    return WriteError(
        f"{path}: cannot be written ({error.strerror or error}); nothing of it was kept: make room "
        f"or make it writable, and go on"
    )


@contextlib.contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears at ``path`` whole, or not at all.

    Raises:
        WriteError: such as on a full disk.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise _failed(path, error) from error
        raise


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    text = dumps(data, indent=1)
    with atomic(path) as file:
        file.write(text + "\n")


class Journal:
    """One JSON object a line, numbered and chained, each on disk before ``append`` returns.

    A line is its number, a checksum over its text and those of all lines before it, and the text.
    A last line that a kill tore off is recognised and dropped. Anything else that is not as it was
    written (damage, a line lost, doubled or out of its place) is an error, because silently losing
    the middle of a run would falsify it. Lines of earlier versions, with a checksum over the text
    alone and no number, are still read.

    Of the lines only their place and checksum are kept in memory: `entry` and `read` go to the file.

    Args:
        path: of the file. Its folder is owned (see `Owner`) until `close`.

    Attributes:
        old: lines of earlier versions at its beginning.

    Raises:
        OwnedError: another process writes there.
        CorruptFileError: a line is not as it was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._owner: Owner | None = Owner(self.path.parent)
        self._open(writing=True)

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Open a journal to read what it holds now: nothing is owned, nothing changed."""
        journal = cls.__new__(cls)
        journal.path = Path(path)
        journal._owner = None
        journal._open(writing=False)
        return journal

    def _open(self, writing: bool) -> None:
        self._file: IO[bytes] | None = None
        self._ends = array.array("Q", [0])
        self._sums = array.array("I", [0])
        self.old = 0
        try:
            if writing:
                self._file = open(self.path, "a+b", buffering=0)
            self._recover()
            if self._file is not None and self._file.tell() > self._ends[-1]:
                self._file.truncate(self._ends[-1])
        except OSError as error:
            self.close()
            if not writing:
                raise AllocgymError(f"{self.path}: cannot be read ({error.strerror})") from error
            raise _failed(self.path, error) from error
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Lines."""
        return len(self._sums) - 1

    @property
    def entries(self) -> list[dict[str, Any]]:
        """All entries, read from the file."""
        return list(self.read())

    def seal(self, lines: int) -> str:
        """Return the checksum over the first ``lines`` lines."""
        return f"{self._sums[lines]:08x}"

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry durably.

        Raises:
            WriteError: such as on a full disk; nothing of the entry is kept then, and the same call
                may be made again.
        """
        if self._file is None or self._owner is None:
            raise AllocgymError(f"{self.path}: closed, or open for reading only")
        text = dumps(entry, separators=(",", ":")).encode()
        total = zlib.crc32(text, self._sums[-1])
        line = b"%08d %08x %s\n" % (len(self), total, text)
        end = self._ends[-1]
        try:
            # What an attempt that failed left behind, where it could not be taken back.
            if os.fstat(self._file.fileno()).st_size != end:
                self._file.truncate(end)
            left = memoryview(line)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(end)
            raise _failed(self.path, error) from error
        self._ends.append(end + len(line))
        self._sums.append(total)

    def entry(self, line: int) -> dict[str, Any]:
        """Return the entry of a line, from 0."""
        with self._readable() as file:
            return self._entry(file, line)

    def read(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the entries from line ``start`` on, one after another from the file."""
        with self._readable() as file:
            for line in range(start, len(self)):
                yield self._entry(file, line)

    def close(self) -> None:
        """Close the file and give up the folder. Idempotent."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._owner is not None:
            self._owner.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _readable(self) -> Iterator[IO[bytes]]:
        """Give the open file, which is there even when its name has gone, or open it."""
        if self._file is not None:
            yield self._file
            return
        with open(self.path, "rb") as file:
            yield file

    def _entry(self, file: IO[bytes], line: int) -> dict[str, Any]:
        file.seek(self._ends[line])
        text = file.read(self._ends[line + 1] - self._ends[line])
        try:
            found: dict[str, Any] = loads(text[text.index(b"{") :])
        except ValueError as error:
            raise self._damaged(line, "is damaged") from error
        return found

    def _damaged(self, number: int, what: str) -> CorruptFileError:
        return CorruptFileError(
            f"{self.path}: line {number + 1} {what}; put back a copy of the file, or keep the lines "
            f"before it and begin from there"
        )

    def _recover(self) -> None:
        """Check every line, and remember where it ends and what the chain comes to."""
        with open(self.path, "rb") as file:
            lines = iter(file)
            for line in lines:
                total = self._checked(line)
                if total is None:
                    if next(lines, None) is not None:
                        raise self._damaged(len(self), "is damaged")
                    return  # the last one: torn by a kill, to be written again
                self._ends.append(self._ends[-1] + len(line))
                self._sums.append(total)

    def _checked(self, line: bytes) -> int | None:
        """Return the chain's checksum with the next line, or None where the line is damaged."""
        head, _, rest = line[:-1].partition(b" ")
        if not line.endswith(b"\n"):
            return None
        # None of the old form may follow one of today's.
        if rest.startswith(b"{") and self.old == len(self):
            total = zlib.crc32(rest)
            self.old += head == b"%08x" % total
            return total if head == b"%08x" % total else None
        given, _, text = rest.partition(b" ")
        if head.isdigit() and int(head) != len(self):
            what = f"says that it is line {int(head) + 1}: lines are lost or out of their place"
            raise self._damaged(len(self), what)
        total = zlib.crc32(text, self._sums[-1])
        if head != b"%08d" % len(self) or given != b"%08x" % total:
            return None
        return total
