import dataclasses
import json
import resource
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, OutOfBudgetError, WriteError
from allocgym.envs.core.journal import Journal, atomic, write_json
from allocgym.envs.core.ledger import Ledger
from allocgym.envs.core.record import Record

ENTRIES = [{"kind": "outcome", "n": k, "x": 0.1 * k} for k in range(4)]


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run" / "journal.jsonl"
    journal = Journal(file)
    for entry in ENTRIES:
        journal.append(entry)
    journal.close()
    return file


def reopened(path):
    with Journal(path) as journal:
        return journal.entries


def test_a_journal_reads_back_what_was_written(path):
    assert reopened(path) == ENTRIES


def test_a_torn_last_line_is_dropped_wherever_it_was_torn(path):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    before = sum(map(len, lines[:-1]))
    for cut in range(before, len(whole)):
        path.write_bytes(whole[:cut])
        assert reopened(path) == ENTRIES[:-1]
        assert path.read_bytes() == whole[:before]


def test_a_journal_goes_on_after_a_torn_line(path):
    path.write_bytes(path.read_bytes()[:-7])
    journal = Journal(path)
    journal.append({"n": "new"})
    journal.close()
    assert reopened(path) == [*ENTRIES[:-1], {"n": "new"}]


@pytest.mark.parametrize("line", [0, 1, 2])
def test_damage_in_the_middle_is_an_error_that_names_the_line(path, line):
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line].replace(b'"n":', b'"m":')
    path.write_bytes(b"".join(lines))
    with pytest.raises(CorruptFileError, match=f"line {line + 1} is damaged"):
        Journal(path)


def test_an_entry_is_on_disk_before_append_returns(tmp_path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append({"a": 1})
    assert Journal.reading(tmp_path / "j.jsonl").entries == [{"a": 1}]
    journal.close()


def test_an_exception_leaves_the_old_file_and_no_litter(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"old": True})
    with pytest.raises(RuntimeError), atomic(file) as handle:
        handle.write("half")
        raise RuntimeError
    assert json.loads(file.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_file_is_replaced_whole(tmp_path):
    file = tmp_path / "deep" / "x.json"
    write_json(file, [1])
    with atomic(file) as handle:
        handle.write("[2")
        handle.flush()
        assert json.loads(file.read_text()) == [1]
        handle.write("]")
    assert json.loads(file.read_text()) == [2]


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 10)), max_size=12), st.integers(0, 200)
)
def test_granted_is_spent_and_wasted_and_left(charges, budget):
    ledger = Ledger(2)
    ledger.grant(np.array([budget, 10_000]), np.array([True, True]))
    for spent, wasted in charges:
        if spent + wasted > ledger.left[0]:
            before = ledger.to_json()
            with pytest.raises(OutOfBudgetError):
                ledger.charge(np.array([spent, spent]), np.array([wasted, wasted]))
            assert ledger.to_json() == before
        else:
            ledger.charge(np.array([spent, spent]), np.array([wasted, wasted]))
        assert (ledger.left >= 0).all()
        np.testing.assert_array_equal(ledger.granted, ledger.spent + ledger.wasted + ledger.left)


def test_only_masked_accounts_are_opened_anew():
    ledger = Ledger(2)
    ledger.grant(np.array([10, 20]), np.array([True, True]))
    ledger.charge(np.array([4, 5]), 1)
    ledger.grant(np.array([7, 99]), np.array([True, False]))
    np.testing.assert_array_equal(ledger.left, [7, 14])
    other = Ledger(2)
    other.load(json.loads(json.dumps(ledger.to_json())))
    assert other.to_json() == ledger.to_json()


@dataclasses.dataclass
class Inner(Record):
    flag: np.ndarray


@dataclasses.dataclass
class Outer(Record):
    number: np.ndarray
    single: np.ndarray
    inner: Inner


@given(
    hnp.arrays(np.float64, (2, 3), elements=st.floats()),
    hnp.arrays(np.float32, (2,), elements=st.floats(width=32)),
    hnp.arrays(np.bool_, (2,)),
)
def test_records_survive_json_bit_for_bit(number, single, flag):
    record = Outer(number, single, Inner(flag))
    back = Outer.from_json(json.loads(json.dumps(record.to_json())))
    for mine, theirs in [
        (record.number, back.number),
        (record.single, back.single),
        (record.inner.flag, back.inner.flag),
    ]:
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        finite = ~np.isnan(mine)
        np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
        assert mine[finite].tobytes() == theirs[finite].tobytes()


def test_an_outcome_survives_json_bit_for_bit(twin, problem):
    outcome = twin.spend(Shares(problem.round(twin.outcome.instance.prior, _memory(twin)).units))
    back = type(outcome).from_json(json.loads(json.dumps(outcome.to_json())))
    assert back.to_json() == outcome.to_json()
    assert back.instance.unique.tobytes() == outcome.instance.unique.tobytes()


def test_rows_are_taken_and_replaced_in_nested_records():
    mine = Outer(np.zeros((3, 2)), np.zeros(3), Inner(np.zeros(3, bool)))
    other = Outer(np.ones((3, 2)), np.ones(3), Inner(np.ones(3, bool)))
    mixed = mine.where(np.array([False, True, False]), other)
    np.testing.assert_array_equal(mixed.number, [[0, 0], [1, 1], [0, 0]])
    np.testing.assert_array_equal(mixed.inner.flag, [False, True, False])
    np.testing.assert_array_equal(mixed.rows(np.array([1])).number, [[1, 1]])


def _memory(backend):
    return backend.problem.begin(backend.outcome)


def rewritten(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda a: a[:1] + a[2:], 2),
        (lambda a: a[1:], 1),
        (lambda a: [*a, a[-1]], 5),
        (lambda a: [a[1], a[0], *a[2:]], 1),
        (lambda a: [*a[:2], a[3], a[2]], 3),
    ],
    ids=["one lost", "the first lost", "doubled", "swapped", "the last two swapped"],
)
def test_lines_lost_doubled_or_swapped_are_an_error_that_names_the_place(path, change, line):
    rewritten(path, change)
    with pytest.raises(CorruptFileError, match=rf"line {line} says that it is line \d: lines are"):
        Journal(path)


def test_a_line_of_another_journal_is_an_error(path, tmp_path):
    other = tmp_path / "other" / "journal.jsonl"
    with Journal(other) as journal:
        for k in range(4):
            journal.append({"kind": "outcome", "n": 10 * k})
    foreign = other.read_bytes().splitlines(keepends=True)
    rewritten(path, lambda lines: [*lines[:2], foreign[2], lines[3]])
    with pytest.raises(CorruptFileError, match="line 3 is damaged"):
        Journal(path)


def old_form(entries):
    texts = [json.dumps(e, separators=(",", ":")).encode() for e in entries]
    return b"".join(b"%08x %s\n" % (zlib.crc32(t), t) for t in texts)


def test_a_journal_of_an_earlier_version_is_read_and_goes_on_numbered(path):
    path.write_bytes(old_form(ENTRIES))
    with Journal(path) as journal:
        assert journal.entries == ENTRIES and journal.old == 4
        journal.append({"n": "new"})
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[4].startswith(b"00000004 ")
    assert reopened(path) == [*ENTRIES, {"n": "new"}]
    path.write_bytes(b"".join([*lines[:3], lines[4]]))
    with pytest.raises(CorruptFileError, match="line 4 says that it is line 5"):
        Journal(path)
    path.write_bytes(b"".join([*lines, lines[0]]))
    assert reopened(path) == [*ENTRIES, {"n": "new"}]  # the old form after the new: as torn


def test_numpy_and_what_is_not_finite_are_written_as_plain_json(tmp_path):
    values = [np.float64(1.5), np.float32(0.1), np.int64(3), np.bool_(True), np.arange(2), 1e400]
    file = tmp_path / "j.jsonl"
    with Journal(file) as journal:
        journal.append({"v": values, "nan": np.float32("nan"), "less": [-np.inf]})
    text = file.read_text().partition("{")[2]
    assert "NaN," not in text.replace('"NaN",', "") and "Infinity" in text

    def refuse(constant):
        raise AssertionError(constant)

    (entry,) = (json.loads("{" + text, parse_constant=refuse),)
    expected = [1.5, float(np.float32(0.1)), 3, True, [0, 1], "Infinity"]
    assert entry == {"v": expected, "nan": "NaN", "less": ["-Infinity"]}
    with pytest.raises(AllocgymError, match="Path"), Journal(file) as journal:
        journal.append({"v": file})
    assert len(reopened(file)) == 1


def test_infinities_and_nan_of_a_record_come_back_through_the_journal(tmp_path):
    record = Outer(np.array([[np.inf, -np.inf]]), np.array([np.nan], np.float32), Inner(np.ones(1)))
    with Journal(tmp_path / "j.jsonl") as journal:
        journal.append(record.to_json())
        back = Outer.from_json(journal.entry(0))
    assert back.number.tobytes() == record.number.tobytes()
    assert back.single.dtype == np.float32 and np.isnan(back.single).all()


@pytest.mark.parametrize("room", [0, 1, 30, 200])
def test_a_full_disk_leaves_neither_half_a_line_nor_two(path, room):
    whole = path.read_bytes()
    entry = {"n": "z" * 300}
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + room, before[1]))
        try:
            for _ in range(2):
                with pytest.raises(WriteError, match="nothing of it was kept"):
                    journal.append(entry)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_bytes() == whole
        journal.append(entry)
    assert reopened(path) == [*ENTRIES, entry]


def test_a_file_that_does_not_fit_leaves_the_old_one(tmp_path):
    file = tmp_path / "x.json"
    write_json(file, {"old": True})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(WriteError, match=r"x\.json: cannot be written"):
            write_json(file, {"new": "z" * 1000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert json.loads(file.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_reading_changes_nothing_and_needs_no_right(path):
    torn = path.read_bytes() + b"00000004 abc"
    path.write_bytes(torn)
    with Journal.reading(path) as journal:
        assert journal.entries == ENTRIES
        with pytest.raises(AllocgymError, match="reading only"):
            journal.append({})
    assert path.read_bytes() == torn
    with pytest.raises(AllocgymError, match="cannot be read"):
        Journal.reading(path.with_name("none"))


def test_entries_are_read_from_any_line_on(path):
    with Journal(path) as journal:
        assert list(journal.read(2)) == ENTRIES[2:] and journal.entry(1) == ENTRIES[1]
        assert list(journal.read(4)) == []
        journal.append({"n": 4})
        assert journal.entry(4) == {"n": 4} and len(journal) == 5
