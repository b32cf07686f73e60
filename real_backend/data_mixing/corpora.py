"""Named text domains as bytes: from this machine, made by rule, or the user's own.

A domain is named by a string:

- ``code`` (Python's standard library), ``prose`` (its documentation and licence), ``c-headers``;
- ``arithmetic``, ``modular``, ``json``, ``sql``, ``dyck``, ``logs``, ``sorting``, ``roman``,
  ``markup``, ``lego``, ``lego-1`` .. ``lego-5`` (chains of five) and ``lego3-1`` .. ``lego3-3``
  (chains of three): generated, see `allocgym.real_backend.data_mixing.generated`;
- ``gsm8k``, ``shakespeare``: where the environment variable ``ALLOCGYM_DATA`` names a folder that
  holds ``mixing/corpora``;
- ``name=path``: a folder, or a ``.txt``, ``.jsonl`` or ``.parquet`` file; ``name=hf:dataset``: a
  Hugging Face dataset; ``name=path#field`` where the text is not in the field ``text``. The rules of
  reading are in `allocgym.real_backend.data_mixing.documents`.

Nothing is downloaded, except by ``hf:``. Text is read once and not held: of a domain, no more is kept
than its cap.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import heapq
import logging
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.untrusted import loads
from allocgym.real_backend.data_mixing import generated
from allocgym.real_backend.data_mixing.documents import Intake

LOG = logging.getLogger(__name__)
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
        offered: bytes of text that were read, before duplicates were dropped and the splits cut.
        note: what was read, left out and cut off, in words.
    """

    name: str
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    digest: str
    answers: str | None = None
    offered: int = 0
    note: str = ""


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
        domain: a name of `available`, ``name=path``, ``name=path#field`` or ``name=hf:dataset``.
        train_bytes: largest size of the training split, bytes; generated text stops at
            `GENERATED_BYTES`.

    Raises:
        AllocgymError: no such domain, nothing at the path, or too little text for three splits.
    """
    name, is_own, place = domain.partition("=")
    documents: Iterable[bytes]
    if is_own:
        intake = Intake(name)
        # A data set on the network may be without end.
        wanted = int(train_bytes * 1.3) + 2 * EVAL_BYTES if place.startswith("hf:") else None
        corpus = split(name, _until(intake.read(place), wanted), train_bytes)
        used = sum(len(part) for part in (corpus.train, corpus.valid, corpus.test))
        note = f"domain {name!r}: {intake.told()}; {used} of {corpus.offered} bytes used"
        if intake.left or intake.mended or used < corpus.offered:
            LOG.warning(note)
        return dataclasses.replace(corpus, note=note)
    if name in generated.GENERATORS:
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
    answers = generated.LEGO_ANSWER if name.startswith("lego") else None
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
    parts = [_Smallest(limit) for limit in (train_bytes, EVAL_BYTES, EVAL_BYTES)]
    offered = number = 0
    for document in documents:
        offered += len(document)
        if document.strip():
            digest = hashlib.blake2b(document, digest_size=8).digest()
            # The order uses the leading bytes, so the split must come from another.
            part = (0, 0, 0, 0, 0, 0, 0, 0, 1, 2)[digest[7] % 10]
            number += parts[part].add(digest, document)
    texts = [part.text() for part in parts]
    if min(map(len, texts)) < 129:
        raise AllocgymError(
            f"domain {name!r}: too little text; train, valid and test came out at "
            f"{', '.join(str(len(t)) for t in texts)} bytes from {number} documents"
        )
    total = hashlib.blake2b(b"\0".join(texts), digest_size=16).hexdigest()
    train, valid, test = (np.frombuffer(text, np.uint8) for text in texts)
    return Corpus(name, train, valid, test, total, answers, offered)


class _Smallest:
    """Of documents that pass by, those with the smallest digests, up to a size in bytes.

    They are the ones that sorting all by digest and cutting there would leave.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._held: dict[bytes, bytes] = {}
        self._order: list[int] = []  # a heap with the largest digest at its root
        self._size = 0

    def add(self, digest: bytes, document: bytes) -> bool:
        """Take in a document; False where it is held already."""
        if digest in self._held:
            return False
        self._held[digest] = document
        self._size += len(document)
        heapq.heappush(self._order, -int.from_bytes(digest))
        while True:
            largest = (-self._order[0]).to_bytes(len(digest))
            if self._size - len(self._held[largest]) < self.limit:
                return True
            self._size -= len(self._held.pop(largest))
            heapq.heappop(self._order)

    def text(self) -> bytes:
        """Return the documents end to end, by digest, cut to the size."""
        return b"".join(self._held[digest] for digest in sorted(self._held))[: self.limit]


def _until(documents: Iterator[bytes], size: int | None) -> Iterator[bytes]:
    """Stop once so many bytes have passed."""
    passed = 0
    for document in documents:
        yield document
        passed += len(document)
        if size is not None and passed > size:
            return


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
        item = loads(line)
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
