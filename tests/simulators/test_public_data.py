import pytest

from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.core import public_data
from allocgym.simulators.core.public_data import CATALOGUE, DataMissingError, Dataset


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOCGYM_DATA", str(tmp_path))
    return tmp_path


def checksum(path="set"):
    return public_data.checksum(Dataset(path, "", "", "", ""))


def test_unset_variable_is_named_with_the_file(monkeypatch):
    monkeypatch.delenv("ALLOCGYM_DATA", raising=False)
    assert not public_data.available("mixing/regmix")
    with pytest.raises(DataMissingError, match=r"mixing/regmix/a\.csv.*ALLOCGYM_DATA"):
        public_data.path("mixing/regmix/a.csv")


def test_empty_variable_is_as_good_as_none(monkeypatch):
    monkeypatch.setenv("ALLOCGYM_DATA", "")
    assert not public_data.available("")
    with pytest.raises(DataMissingError):
        public_data.path("pyproject.toml")


def test_absent_file_is_named(folder):
    assert not public_data.available("a/b.csv")
    with pytest.raises(DataMissingError, match=r"a/b\.csv.*ALLOCGYM_DATA"):
        public_data.path("a/b.csv")


def test_present_file_is_found(folder):
    (folder / "a").mkdir()
    (folder / "a" / "b.csv").write_text("1")
    assert public_data.available("a/b.csv")
    assert public_data.path("a/b.csv").read_text() == "1"


def test_error_is_one_of_ours():
    assert issubclass(DataMissingError, AllocgymError)


def test_catalogue_says_where_everything_comes_from():
    paths = [d.path for d in CATALOGUE]
    assert {"mixing/regmix", "mixing/doremi"} <= set(paths)
    assert len(set(paths)) == len(paths)
    for dataset in CATALOGUE:
        assert not dataset.path.startswith(("/", ".."))
        assert "@ " in dataset.source, "a revision"
        assert dataset.what and dataset.licence and dataset.used_for


def test_checksum_follows_contents_and_names_only(folder):
    (folder / "set" / "deep").mkdir(parents=True)
    file = folder / "set" / "deep" / "x"
    file.write_text("one")
    first = checksum()
    assert checksum() == first
    file.write_text("two")
    assert checksum() != first
    file.write_text("one")
    assert checksum() == first
    file.rename(folder / "set" / "deep" / "y")
    assert checksum() != first


def test_checksum_does_not_depend_on_where_the_data_lies(tmp_path, monkeypatch):
    sums = []
    for name in ("here", "there"):
        (tmp_path / name / "set").mkdir(parents=True)
        (tmp_path / name / "set" / "x").write_text("same")
        monkeypatch.setenv("ALLOCGYM_DATA", str(tmp_path / name))
        sums.append(checksum())
    assert sums[0] == sums[1]


def test_checksum_of_absent_data_raises(folder):
    with pytest.raises(DataMissingError, match="set"):
        checksum()
