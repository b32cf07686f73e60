"""Documents from files that anybody may have written, one after another, never all at once.

Read are ``.txt`` (and other text), ``.jsonl`` and ``.ndjson``, ``.parquet``, folders of these, and
``hf:`` data sets. The rules, the same for all:

- a document of JSON lines or Parquet is the text in one field, ``text`` unless ``path#field`` names
  another; long text is cut at blank lines into documents of about 2 KB;
- lines end with LF, CRLF or CR; a byte-order mark is dropped; bytes that are not UTF-8, and halves of
  surrogate pairs, become the replacement character;
- a line that is no JSON object (torn, say), a row without a text in the field, and a file of a folder
  that is not text (a picture, an archive, JSON that is not in lines) are left out and counted; if
  nothing is left, or more rows than not are left out, the domain is refused.
"""

from __future__ import annotations

import codecs
import collections
import mimetypes
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.untrusted import loads

FIELD = "text"
CHUNK = 2_000  # characters of a document cut from a long text
LONGEST = 16 * CHUNK  # of one without blank lines
LINE = 64 * 2**20  # characters: a longer line of JSON is left out
ROWS = 1024  # read from Parquet at once
LINES, TABLE = {".jsonl", ".ndjson"}, ".parquet"
REPLACED = "\ufffd".encode()
NOT_TEXT = {"image", "audio", "video", "font"}
NOT_PROSE = {".json", ".csv", ".tsv", ".bin", ".npy", ".safetensors"}


class Intake:
    """What was read of a domain, and what was left out and why.

    Attributes:
        documents: read.
        size: of their text, bytes.
        mended: of them hold a replacement character.
        left: rows and files left out, by reason.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.documents = 0
        self.size = 0
        self.mended = 0
        self.left: collections.Counter[str] = collections.Counter()

    def read(self, place: str) -> Iterator[bytes]:
        """Yield the documents of ``path``, ``path#field`` or ``hf:dataset``.

        Raises:
            AllocgymError: nothing there, not of a kind that is read, or hardly anything usable in it.
        """
        for document in self._documents(place):
            self.documents += 1
            self.size += len(document)
            self.mended += REPLACED in document
            yield document
        rows = sum(n for why, n in self.left.items() if not why.startswith("file"))
        if rows and rows >= self.documents:
            raise AllocgymError(f"domain {self.name!r}: {self.told()}, from {place}; {_HINT}")

    def told(self) -> str:
        """Say in words what was read and left out."""
        reasons = ", ".join(f"{n} {why}" for why, n in sorted(self.left.items()))
        left = sum(self.left.values())
        said = f"{self.documents} documents read, {left} left out" + (
            f" ({reasons})" if left else ""
        )
        if self.mended:
            said += f", {self.mended} with bytes that are not UTF-8"
        return said

    def _documents(self, place: str) -> Iterator[bytes]:
        source, field = _place(place)
        if source.startswith("hf:"):
            yield from self._rows(_hugging_face(source[3:]), field)
            return
        path = Path(source).expanduser()
        try:
            if path.is_dir():
                yield from self._folder(path, field)
            elif not path.exists():
                raise AllocgymError(f"domain {self.name!r}: nothing at {path}")
            elif path.suffix in LINES or path.suffix == TABLE:
                yield from self._file(path, field)
            elif path.suffix in (".txt", ".md"):
                if not _is_text(path):
                    raise AllocgymError(f"domain {self.name!r}: {path} is not text in UTF-8")
                yield from self._file(path, field)
            else:
                raise AllocgymError(
                    f"domain {self.name!r}: a folder, .txt, .md, .jsonl, .ndjson or .parquet "
                    f"expected, given {path}"
                )
        except OSError as error:
            raise AllocgymError(
                f"domain {self.name!r}: cannot be read ({error}); check {path}"
            ) from error

    def _folder(self, folder: Path, field: str) -> Iterator[bytes]:
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or any(p[0] == "." for p in path.relative_to(folder).parts):
                continue
            if path.suffix in LINES or path.suffix == TABLE or _is_text(path):
                yield from self._file(path, field)
            else:
                self.left["files that are not text"] += 1

    def _file(self, path: Path, field: str) -> Iterator[bytes]:
        if path.suffix in LINES:
            return self._rows(_json_lines(path), field)
        if path.suffix == TABLE:
            return self._rows(self._table(path, field), field)
        return _blocks(path)

    def _rows(self, rows: Iterable[Any], field: str) -> Iterator[bytes]:
        for row in rows:
            if not isinstance(row, dict):
                self.left["lines that are no JSON object"] += 1
            elif not isinstance(row.get(field), str):
                self.left[f"rows without a text in {field!r}"] += 1
            else:
                yield row[field].encode("utf-8", "replace") + b"\n\n"

    def _table(self, path: Path, field: str) -> Iterator[Any]:
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as table:
                names = table.schema_arrow.names
                if field not in names:
                    raise AllocgymError(
                        f"domain {self.name!r}: a column {field!r} expected in {path}, found "
                        f"{', '.join(names)}; {_HINT}"
                    )
                for batch in table.iter_batches(ROWS, columns=[field]):
                    yield from batch.to_pylist()
        except pyarrow.ArrowException as error:
            raise AllocgymError(
                f"domain {self.name!r}: {path} is no Parquet file, or damaged ({error})"
            ) from error


_HINT = "the field is named after the path: name=path#field"


def _place(place: str) -> tuple[str, str]:
    """Split ``path#field``; a file whose own name has a # in it is found first."""
    source, mark, field = place.rpartition("#")
    if not mark or (not place.startswith("hf:") and Path(place).expanduser().exists()):
        return place, FIELD
    return source, field or FIELD


def _open(path: Path) -> Any:
    # Universal newlines: U+2028 and its like inside a string of JSON end no line.
    return open(path, encoding="utf-8-sig", errors="replace")


def _json_lines(path: Path) -> Iterator[Any]:
    """Yield what each line holds; None where it is not JSON."""
    with _open(path) as file:
        whole = True
        while line := file.readline(LINE):
            began, whole = whole, line.endswith("\n")
            if not began:
                continue  # the rest of a line that is too long
            if not line.strip():
                continue
            try:
                yield loads(line) if len(line) < LINE else None
            except (ValueError, RecursionError):
                yield None


def _blocks(path: Path) -> Iterator[bytes]:
    """Cut a text at blank lines, and one without any at its length, into documents."""
    held: list[str] = []
    size = 0

    def cut() -> bytes:
        return ("".join(held).rstrip() + "\n\n").encode()

    with _open(path) as file:
        while line := file.readline(LONGEST):
            held.append(line)
            size += len(line)
            if (size >= CHUNK and not line.strip()) or size >= LONGEST:
                yield cut()
                held, size = [], 0
    if "".join(held).strip():
        yield cut()


def _is_text(path: Path) -> bool:
    """Whether a file of a folder is prose or code, by its suffix and its first bytes."""
    kind = mimetypes.guess_type(path.name)[0] or ""
    if kind.partition("/")[0] in NOT_TEXT or path.suffix.lower() in NOT_PROSE:
        return False
    with open(path, "rb") as file:
        head = file.read(8192)
    if b"\0" in head:
        return False
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(head)
    return text.count("\ufffd") <= len(text) // 20


def _hugging_face(dataset: str) -> Iterable[Any]:
    try:
        import datasets
    except ImportError as error:
        raise AllocgymError(
            f"hf:{dataset}: the package datasets is needed: pip install datasets"
        ) from error
    rows: Iterable[Any] = datasets.load_dataset(dataset, split="train", streaming=True)
    return rows
