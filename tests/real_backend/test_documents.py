"""Text of one's own, as anybody may have written it."""

import hashlib
import json

import numpy as np
import pytest

from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.data_mixing import corpora
from allocgym.real_backend.data_mixing.documents import LONGEST, Intake

TEXTS = [f"document {i}: " + "some words of it, " * 8 for i in range(200)]


def lines(texts, field="text"):
    return "".join(json.dumps({field: t}, ensure_ascii=False) + "\n" for t in texts)


def read(place):
    intake = Intake("mine")
    return list(intake.read(str(place))), intake


def written(path, data):
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


EXPECTED = [text.encode() + b"\n\n" for text in TEXTS]


@pytest.mark.parametrize(
    "data",
    [
        lines(TEXTS).encode(),
        b"\xef\xbb\xbf" + lines(TEXTS).encode(),
        lines(TEXTS).replace("\n", "\r\n").encode(),
        lines(TEXTS).replace("\n", "\r").encode(),
        lines(TEXTS).replace("\n", "\n\n").encode(),
        lines(TEXTS).encode()[:-1],
    ],
    ids=["lf", "bom", "crlf", "cr", "blank lines", "no last newline"],
)
def test_json_lines_are_the_same_documents_however_they_end(tmp_path, data):
    documents, intake = read(written(tmp_path / "a.jsonl", data))
    assert documents == EXPECTED
    assert intake.left.total() == 0 and intake.size == sum(map(len, EXPECTED))


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x0b", "\x0c", "\x85", "\x1e"])
def test_a_separator_inside_a_string_ends_no_line(tmp_path, separator):
    texts = [*TEXTS, f"before{separator}after"]
    documents, intake = read(written(tmp_path / "a.jsonl", lines(texts)))
    assert len(documents) == 201 and not intake.left
    assert separator.encode() in documents[-1]


def test_lines_that_cannot_be_used_are_left_out_and_counted(tmp_path):
    bad = b'{"content": "x"}\n{"text": null}\n[1]\n"words"\n{"text": "\xff\xfe"}\n{"text":"torn'
    documents, intake = read(written(tmp_path / "a.jsonl", lines(TEXTS).encode() + bad))
    assert documents[:200] == EXPECTED and documents[200:] == ["\ufffd\ufffd\n\n".encode()]
    assert intake.left == {"lines that are no JSON object": 3, "rows without a text in 'text'": 2}
    assert intake.told() == (
        "201 documents read, 5 left out (3 lines that are no JSON object, 2 rows without a text in "
        "'text'), 1 with bytes that are not UTF-8"
    )


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    documents, _ = read(written(tmp_path / "a.jsonl", lines(TEXTS) + '{"text": "a\\ud800b"}\n'))
    assert documents[-1] == b"a?b\n\n"


def test_mostly_unusable_lines_are_refused_with_the_way_to_name_the_field(tmp_path):
    path = written(tmp_path / "a.jsonl", lines(TEXTS, "body"))
    with pytest.raises(AllocgymError, match=r"200 rows without a text in 'text'.*#field"):
        read(path)
    assert read(f"{path}#body")[0] == EXPECTED
    other = written(tmp_path / "odd#name.jsonl", lines(TEXTS))
    assert read(other)[0] == EXPECTED


def test_a_folder_is_read_by_suffix(tmp_path):
    for shard in range(4):
        written(tmp_path / f"{shard}.jsonl", lines(TEXTS[shard::4]))
    written(tmp_path / "notes.md", "# Title\n\nProse, a little.\n")
    written(tmp_path / "picture.png", b"\x89PNG\r\n\x1a\n" + b"\0\1\2" * 400)
    written(tmp_path / "drawing.svg", "<svg/>")
    written(tmp_path / "blob", np.arange(999, dtype=np.int32).tobytes())
    written(tmp_path / "latin", ("é" * 300).encode("latin-1"))
    written(tmp_path / "whole.json", json.dumps([{"text": "not in lines"}]))
    written(tmp_path / ".hidden", "nothing to see")
    documents, intake = read(tmp_path)
    assert sorted(documents) == sorted([*EXPECTED, b"# Title\n\nProse, a little.\n\n"])
    assert intake.left == {"files that are not text": 5}


def test_parquet_is_read_by_its_column(tmp_path):
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"text": [*TEXTS, None], "n": range(201)}), path)
    documents, intake = read(path)
    assert documents == EXPECTED and intake.left == {"rows without a text in 'text'": 1}
    with pytest.raises(AllocgymError, match="'n'"):
        read(f"{path}#n")
    with pytest.raises(AllocgymError, match="'body' expected"):
        read(f"{path}#body")
    written(path, path.read_bytes()[:-9])
    with pytest.raises(AllocgymError, match="no Parquet file, or damaged"):
        read(path)


def test_a_long_text_is_cut_and_nothing_of_it_lost(tmp_path):
    text = " ".join(f"word{i}" for i in range(40_000))
    documents, _ = read(written(tmp_path / "a.txt", text))
    assert max(map(len, documents)) <= LONGEST + 2
    joined = b"".join(d.removesuffix(b"\n\n") for d in documents).decode()
    assert joined.replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("data", [b"\0" * 9000, b"\xff\xd8\xff\xe0" * 999], ids=["nul", "jpeg"])
def test_a_text_that_is_none_is_refused(tmp_path, data):
    with pytest.raises(AllocgymError, match="not text"):
        read(written(tmp_path / "a.txt", data))


def test_no_more_is_kept_than_the_cap_and_it_is_said(tmp_path, caplog):
    texts = [f"{i} " + "a word " * 40 for i in range(4000)]
    path = written(tmp_path / "a.jsonl", lines(texts))
    corpora.load.cache_clear()
    corpus = corpora.load(f"mine={path}", 50_000)
    assert len(corpus.train) == 50_000
    assert corpus.offered == sum(len(t) + 2 for t in texts)
    used = len(corpus.train) + len(corpus.valid) + len(corpus.test)
    said = f"domain 'mine': 4000 documents read, 0 left out; {used} of {corpus.offered} bytes used"
    assert corpus.note == said and said in caplog.text


def test_streaming_keeps_what_sorting_everything_would():
    rng = np.random.default_rng(0)
    texts = [bytes(rng.integers(97, 123, rng.integers(20, 400), np.uint8)) for _ in range(3000)]
    held = corpora._Smallest(20_000)
    hashed = {hashlib.blake2b(t, digest_size=8).digest(): t for t in texts}
    for digest, text in hashed.items():
        assert held.add(digest, text)
    expected = b"".join(hashed[d] for d in sorted(hashed))[:20_000]
    assert held.text() == expected
    assert len(held._held) < 200
