"""Corpora, LEGO, streams: what the model reads."""

import hashlib

import numpy as np
import pytest

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.data_mixing import corpora, generated, streams


def tiny(name, documents=400, answers=None):
    rng = np.random.default_rng(0)
    texts = [f"{name} {i} {rng.integers(10**9)}\n".encode() * 4 for i in range(documents)]
    return corpora.split(name, texts, answers=answers)


def documents_of(text):
    return {bytes(line) for line in bytes(text).split(b"\n")}


@pytest.mark.parametrize("name", ["arithmetic", "json", "sql", "lego-2"])
def test_splits_are_disjoint_by_document(name):
    corpus = corpora.load(name, 200_000)
    train, valid, test = (
        documents_of(part)
        for part in (corpus.train[:-200], corpus.valid[:-200], corpus.test[:-200])
    )
    # The last line of each may be a fragment, and fragments may coincide.
    shared = (train & valid) | (train & test) | (valid & test)
    assert len(shared) <= 4


def test_split_depends_on_content_alone_and_drops_duplicates():
    texts = [f"document {i} ".encode() * 20 for i in range(300)]
    one = corpora.split("x", texts)
    two = corpora.split("x", [*texts[::-1], *texts])
    assert one.digest == two.digest
    extra = corpora.split("x", [*texts, b"another one " * 30])
    assert extra.digest != one.digest
    moved = [t for t in texts if (t in bytes(one.test)) != (t in bytes(extra.test))]
    assert not moved


def test_generated_text_is_the_same_every_time():
    again = generated.documents("arithmetic", 10_000)
    assert again == generated.documents("arithmetic", 10_000)
    digest = hashlib.blake2b(b"".join(again), digest_size=4).hexdigest()
    assert digest == hashlib.blake2b(b"".join(again), digest_size=4).hexdigest()


def test_arithmetic_and_modular_are_right():
    for line in generated.documents("arithmetic", 5_000) + generated.documents("modular", 5_000):
        left, right = line.decode().strip().split("=")
        assert eval(left) == int(right)


@pytest.mark.parametrize("name", [n for n in generated.GENERATORS if n.startswith("lego")])
def test_lego_answers_are_right(name):
    made = generated.documents(name, 6_000)
    sizes = {len(d) for d in made}
    assert sizes == ({16} if name.startswith("lego3") else {32})
    for document in made:
        right, given = generated.lego_answer(document.decode())
        assert right == given


def test_lego_depth_is_the_depth():
    for depth in (1, 3, 5):
        source = generated.lego(randomness.generator(0, "t"), depth)
        for _ in range(20):
            body, question = next(source).strip().split("?")
            rules = {clause[0]: clause[2] for clause in body.split(";")}
            links, name = 1, question[0]
            while not rules[name].isdigit():
                links, name = links + 1, rules[name]
            assert links == depth


def test_dyck_balances():
    pairs = dict(zip(")]}>", "([{<", strict=True))
    for word in generated.documents("dyck", 5_000):
        stack = []
        for c in word.decode().strip():
            if c in pairs:
                assert stack.pop() == pairs[c]
            else:
                stack.append(c)
        assert not stack


def test_code_and_prose_are_there():
    code, prose = corpora.load("code"), corpora.load("prose")
    assert min(len(code.train), len(prose.train)) > 300_000
    assert min(len(c.valid) for c in (code, prose)) > 20_000
    assert b"def " in bytes(code.train)


def test_missing_corpora_are_named(monkeypatch):
    monkeypatch.delenv("ALLOCGYM_DATA", raising=False)
    with pytest.raises(AllocgymError, match="Did you mean 'code'"):
        corpora.load("cod")
    with pytest.raises(AllocgymError, match="ALLOCGYM_DATA"):
        corpora.load("gsm8k")
    with pytest.raises(AllocgymError, match="nothing at"):
        corpora.load("mine=/nowhere/at/all")


def test_own_files(tmp_path):
    lines = [f"line {i} of my own text, long enough to matter" for i in range(2000)]
    (tmp_path / "a.txt").write_text("\n\n".join(lines))
    (tmp_path / "b.jsonl").write_text("\n".join(f'{{"text": "{line}"}}' for line in lines))
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": lines}), tmp_path / "c.parquet")
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(60):
        (folder / f"{i}.md").write_text(lines[i] * 10)
    for place in ("a.txt", "b.jsonl", "c.parquet", "folder"):
        corpus = corpora.load(f"mine={tmp_path / place}")
        assert corpus.name == "mine" and len(corpus.train) > 5_000
    parquet.write_table(pyarrow.table({"body": lines}), tmp_path / "d.parquet")
    with pytest.raises(AllocgymError, match="'text' expected"):
        corpora.load(f"mine={tmp_path / 'd.parquet'}")
    (tmp_path / "e.txt").write_text("short")
    with pytest.raises(AllocgymError, match="too little text"):
        corpora.load(f"mine={tmp_path / 'e.txt'}")


def test_public_corpora_where_the_data_is(monkeypatch, tmp_path):
    folder = tmp_path / "mixing" / "corpora"
    folder.mkdir(parents=True)
    text = "\n\n".join(f"SPEAKER {i}:\nA line of verse, number {i}." * 3 for i in range(2000))
    (folder / "tinyshakespeare.txt").write_text(text)
    monkeypatch.setenv("ALLOCGYM_DATA", str(tmp_path))
    assert "shakespeare" in corpora.available()
    assert corpora.load("shakespeare", 50_000).name == "shakespeare"


def test_an_epoch_is_every_window_once_and_then_repeats_in_another_order():
    stream = streams.Stream(tiny("a"), 128, seed=3, stage="episode")
    n = stream.epoch
    first = [stream.sequence(k)[0].tobytes() for k in range(n)]
    second = [stream.sequence(k)[0].tobytes() for k in range(n, 2 * n)]
    assert sorted(first) == sorted(second) and first != second
    other = streams.Stream(tiny("a"), 128, seed=4, stage="episode")
    assert [other.sequence(k)[0].tobytes() for k in range(n)] != first


def test_a_scarce_domain_has_that_many_windows_whatever_the_seed():
    pools = []
    for seed in (0, 1):
        stream = streams.Stream(tiny("a"), 128, seed, "episode", unique=5)
        assert stream.epoch == 5
        pools.append({stream.sequence(k)[0].tobytes() for k in range(20)})
    assert pools[0] == pools[1] and len(pools[0]) == 5
    with pytest.raises(AllocgymError, match="unique"):
        streams.Stream(tiny("a"), 128, 0, "episode", unique=10**6)


def test_interleaving_is_even_and_exact():
    units = np.array([10, 0, 20, 2])
    order = streams.interleave(units)
    assert np.bincount(order, minlength=4).tolist() == units.tolist()
    for part in np.split(order, 2):
        assert np.bincount(part, minlength=4).tolist() == (units // 2).tolist()


def test_only_answers_are_scored_in_lego():
    corpus = corpora.load("lego-1", 100_000)
    tokens, scored = streams.evaluation_set(corpus.test, 128, 10, corpus.answers)
    assert (scored.sum(1) == 4).all()
    assert set(tokens[:, 1:][scored].tolist()) == {ord("0"), ord("1")}
