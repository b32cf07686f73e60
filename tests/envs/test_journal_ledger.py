import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from allocgym.envs.core.contracts import Record, Shares, nested
from allocgym.envs.core.errors import CorruptFileError, OutOfBudgetError
from allocgym.envs.core.journal import Journal, atomic, write_json
from allocgym.envs.core.ledger import Ledger

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
    inner: Inner = nested(Inner)


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
