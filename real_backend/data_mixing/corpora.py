"""Named text domains as bytes: from this machine, made by rule, or the user's own.

A domain is named by a string:

- ``code`` (Python's standard library), ``prose`` (its documentation and licence), ``c-headers``;
- ``arithmetic``, ``modular``, ``json``, ``sql``, ``dyck``, ``logs``, ``sorting``, ``roman``,
  ``markup``, ``lego``, ``lego-1`` .. ``lego-5`` (chains of five) and ``lego3-1`` .. ``lego3-3``
  (chains of three): generated, see `allocgym.real_backend.data_mixing.generated`;
- ``gsm8k``, ``shakespeare``: where the environment variable ``ALLOCGYM_DATA`` names a folder that
  holds ``mixing/corpora``;
- ``name=path``: a folder of text files, or a ``.txt``, ``.jsonl`` (field ``text``) or ``.parquet``
  (column ``text``) file; ``name=hf:dataset``: a Hugging Face dataset with a column ``text``.

Nothing is downloaded, except by ``hf:``.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.real_backend.data_mixing import generated

TRAIN_BYTES = 2_000_000
GENERATED_BYTES = 1_000_000
EVAL_BYTES = 128_000
_CHUNK = 2_000
_SKIP = {"test", "tests", "idle_test", "site-packages", "encodings", "pydoc_data", "__pycache__"}


@dataclasses.dataclass(frozen=True, eq=False)
class Corpus:
    """One domain's text.

    Attributes:
        name: of the domain.
        train, valid, test: uint8, the documents of each split end to end. No document is in two.
        digest: of all three, for cache keys.
        answers: where given, a regular expression; training and evaluation score only what its
            group 1 matches.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    digest: str
    answers: str | None = None


def name_of(domain: str) -> str:
    """Return the name in ``name`` or ``name=path``."""
    return domain.partition("=")[0]


def available() -> list[str]:
    """List the domains that can be loaded by name on this machine."""
    names = ["code", "prose", *generated.GENERATORS]
    if any(_headers().glob("*.h")):
        names.append("c-headers")
    names += [name for name in _PUBLIC if _public(name) is not None]
    return sorted(names)


@functools.cache
def load(domain: str, train_bytes: int = TRAIN_BYTES) -> Corpus:
    """Load a domain, split by document.

    A document's split is decided by a hash of its content alone, so it never moves when others
    are added; exact duplicates are dropped first. Kept in memory for the life of the process.

    Args:
        domain: a name of `available`, ``name=path`` or ``name=hf:dataset``.
        train_bytes: largest size of the training split, bytes; generated text stops at
            `GENERATED_BYTES`.

    Raises:
        AllocgymError: no such domain, nothing at the path, or too little text for three splits.
    """
    name, is_own, place = domain.partition("=")
    # A fifth goes to evaluation, and duplicates are dropped.
    wanted = int(train_bytes * 1.3) + 2 * EVAL_BYTES
    documents: Iterable[bytes]
    if is_own:
        documents = _own(name, place, wanted)
    elif name in generated.GENERATORS:
        made = int(min(train_bytes, GENERATED_BYTES) * 1.3) + 2 * EVAL_BYTES
        documents = generated.documents(name, made)
    elif name in available():
        documents = _SOURCES[name]()
    else:
        hint = ", ".join(available())
        if name in _PUBLIC:
            raise AllocgymError(
                f"domain: {name!r} needs the environment variable ALLOCGYM_DATA to name a folder "
                f"with mixing/corpora/{_PUBLIC[name]}; available here: {hint}"
            )
        raise unknown("domain", name, available())
    answers = generated.LEGO_ANSWER if name.startswith("lego") and not is_own else None
    return split(name, documents, train_bytes, answers)


def split(
    name: str,
    documents: Iterable[bytes],
    train_bytes: int = TRAIN_BYTES,
    answers: str | None = None,
) -> Corpus:
    """Drop duplicates, split by content hash (8 : 1 : 1), shuffle by it too, cut to size.

    Raises:
        AllocgymError: a split has less than one window of 129 bytes.
    """
    hashed = {hashlib.blake2b(d, digest_size=8).digest(): d for d in documents if d.strip()}
    parts: tuple[list[bytes], ...] = ([], [], [])
    sizes = [0, 0, 0]
    limits = (train_bytes, EVAL_BYTES, EVAL_BYTES)
    for digest in sorted(hashed):
        # The order uses the leading bytes, so the split must come from another.
        part = (0, 0, 0, 0, 0, 0, 0, 0, 1, 2)[digest[7] % 10]
        if sizes[part] < limits[part]:
            parts[part].append(hashed[digest])
            sizes[part] += len(hashed[digest])
    texts = [b"".join(part)[:limit] for part, limit in zip(parts, limits, strict=True)]
    if min(map(len, texts)) < 129:
        raise AllocgymError(
            f"domain {name!r}: too little text; train, valid and test came out at "
            f"{', '.join(str(len(t)) for t in texts)} bytes from {len(hashed)} documents"
        )
    total = hashlib.blake2b(b"\0".join(texts), digest_size=16).hexdigest()
    train, valid, test = (np.frombuffer(text, np.uint8) for text in texts)
    return Corpus(name, train, valid, test, total, answers)


def _text(path: Path) -> bytes:
    return path.read_bytes().rstrip() + b"\n\n"


def _stdlib() -> Iterator[tuple[Path, bool]]:
    """Walk the standard library's modules; the flag says whose text is kept for ``prose``."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not _SKIP.intersection(path.relative_to(root).parts[:-1]):
            # No file serves both domains: docstrings would leak from one into the other's test.
            yield path, hashlib.blake2b(path.name.encode()).digest()[0] % 3 == 0


def _code() -> Iterator[bytes]:
    return (_text(path) for path, prose in _stdlib() if not prose)


def _prose() -> Iterator[bytes]:
    root = Path(sysconfig.get_path("stdlib"))
    topics = root / "pydoc_data" / "topics.py"
    if topics.exists():
        from pydoc_data.topics import topics as texts

        yield from (text.encode() + b"\n" for text in texts.values())
    for name in ("LICENSE.txt", "idlelib/NEWS.txt", "idlelib/NEWS2x.txt", "idlelib/README.txt"):
        if (root / name).exists():
            yield from _blocks(_text(root / name))
    for path, prose in _stdlib():
        if prose:
            found = re.findall(rb'"""(.*?)"""', path.read_bytes(), re.DOTALL)
            text = b"\n\n".join(doc.strip() for doc in found if len(doc) > 80)
            yield text + b"\n\n" if text else b""


def _headers() -> Path:
    return Path(sysconfig.get_path("include"))


def _c_headers() -> Iterator[bytes]:
    return (_text(path) for path in sorted(_headers().rglob("*.h")))


def _gsm8k() -> Iterator[bytes]:
    path = _public("gsm8k")
    assert path is not None
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        yield f"Question: {item['question']}\nAnswer: {item['answer']}\n\n".encode()


def _shakespeare() -> Iterator[bytes]:
    path = _public("shakespeare")
    assert path is not None
    return _blocks(path.read_bytes())


_PUBLIC = {"gsm8k": "gsm8k_train.jsonl", "shakespeare": "tinyshakespeare.txt"}
_SOURCES: dict[str, Callable[[], Iterator[bytes]]] = {
    "code": _code,
    "prose": _prose,
    "c-headers": _c_headers,
    "gsm8k": _gsm8k,
    "shakespeare": _shakespeare,
}


def _public(name: str) -> Path | None:
    folder = os.environ.get("ALLOCGYM_DATA")
    if not folder:
        return None
    path = Path(folder) / "mixing" / "corpora" / _PUBLIC[name]
    return path if path.exists() else None


def _blocks(text: bytes) -> Iterator[bytes]:
    """Cut one long text at blank lines into documents of about 2 KB."""
    held, size = [], 0
    for paragraph in re.split(rb"\n\s*\n", text):
        held.append(paragraph)
        size += len(paragraph) + 2
        if size >= _CHUNK:
            yield b"\n\n".join(held) + b"\n\n"
            held, size = [], 0
    if held:
        yield b"\n\n".join(held) + b"\n\n"


def _own(name: str, place: str, wanted: int) -> Iterator[bytes]:
    """Read the user's documents: a folder, a file, or ``hf:dataset``."""
    if place.startswith("hf:"):
        return _hugging_face(place[3:], wanted)
    path = Path(place).expanduser()
    if path.is_dir():
        files = (p for p in sorted(path.rglob("*")) if p.is_file() and p.name[0] != ".")
        return (_text(p) for p in files)
    if not path.exists():
        raise AllocgymError(f"domain {name!r}: nothing at {path}")
    if path.suffix == ".txt":
        return _blocks(path.read_bytes())
    if path.suffix == ".jsonl":
        lines = path.read_text(encoding="utf-8").splitlines()
        return _rows(name, path, (json.loads(line) for line in lines if line.strip()))
    if path.suffix == ".parquet":
        from pyarrow import parquet

        names = parquet.read_schema(path).names
        if "text" not in names:
            raise AllocgymError(
                f"domain {name!r}: a column 'text' expected in {path}, found {', '.join(names)}"
            )
        return _rows(name, path, parquet.read_table(path, columns=["text"]).to_pylist())
    raise AllocgymError(
        f"domain {name!r}: a folder, .txt, .jsonl or .parquet expected, given {path}"
    )


def _rows(name: str, path: object, rows: Iterable[dict[str, str]]) -> Iterator[bytes]:
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise AllocgymError(f"domain {name!r}: no field 'text' in row {number} of {path}")
        yield row["text"].encode() + b"\n\n"


def _hugging_face(dataset: str, wanted: int) -> Iterator[bytes]:
    try:
        import datasets
    except ImportError as error:
        raise AllocgymError(
            f"hf:{dataset}: the package datasets is needed: pip install datasets"
        ) from error
    total = 0
    rows = datasets.load_dataset(dataset, split="train", streaming=True)
    for document in _rows(dataset, f"hf:{dataset}", rows):
        yield document
        total += len(document)
        if total > wanted:
            return
