import json
from pathlib import Path

import numpy as np
import pytest

from allocgym.benchmarks.core import compare, suite, tables
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure


def test_a_paired_difference_by_hand():
    result = compare.paired(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 5.0]))
    assert result.mean == pytest.approx(-1.0)
    assert (result.wins, result.losses, result.n) == (2, 0, 3)
    assert result.low <= result.mean <= result.high


def test_a_clear_lead_is_won_and_its_mirror_lost():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0, 0.1, 30), rng.normal(1, 0.1, 30)
    assert compare.paired(ours, theirs).verdict == "won"
    assert compare.paired(theirs, ours).verdict == "lost"
    assert compare.paired(ours, ours).verdict == "tie"


def test_holm_by_hand():
    # sorted .01 .02 .04 -> .03 .04 .04
    assert compare.holm([0.02, 0.01, 0.04]) == pytest.approx([0.04, 0.03, 0.04])
    assert compare.holm([]) == []


def test_normalised_gain_is_withheld_where_the_oracle_leads_by_noise():
    rng = np.random.default_rng(0)
    uniform = rng.normal(2, 0.1, 50)
    assert compare.normalised_gain(uniform - 0.5, uniform, uniform - 1) == pytest.approx(0.5)
    noise = uniform + rng.normal(0, 1, 50)
    assert compare.normalised_gain(uniform, uniform, noise) is None


def _double(cell):
    return {"value": 2 * cell["x"]}


def test_cells_are_run_once(tmp_path):
    cells = [{"x": 1}, {"x": 2}, {"x": 1}]
    first = suite.run_cells(cells, _double, tmp_path, processes=1)
    assert [r["value"] for r in first] == [2, 4, 2]
    for file in tmp_path.glob("*.json"):
        data = json.loads(file.read_text())
        data["result"]["value"] += 100
        file.write_text(json.dumps(data))
    again = suite.run_cells(cells, _double, tmp_path, processes=1)
    assert [r["value"] for r in again] == [102, 104, 102]


def _length(cell):
    return {"value": len(Path(cell["agent"]).read_bytes())}


def _raised(file, change):
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_text(file.read_text()[:-40]),
        lambda file: file.write_text(""),
        lambda file: file.write_text("[]"),
        lambda file: _raised(file, lambda d: d.pop("key")),
        lambda file: _raised(file, lambda d: d["key"].update(version="0")),
        lambda file: _raised(file, lambda d: d["key"]["cell"].update(x=9)),
        lambda file: _raised(file, lambda d: d.update(result=[1, 2])),
    ],
)
def test_a_damaged_or_foreign_cell_is_run_again(tmp_path, damage):
    suite.run_cells([{"x": 3}], _double, tmp_path, processes=1)
    (file,) = tmp_path.glob("*.json")
    whole = file.read_text()
    damage(file)
    assert suite.run_cells([{"x": 3}], _double, tmp_path, processes=1) == [{"value": 6}]
    assert file.read_text() == whole


def test_a_cell_is_another_where_what_decides_it_is(tmp_path, monkeypatch):
    agent, folder = tmp_path / "agent.zip", tmp_path / "cells"
    agent.write_text("one")

    def run(work):
        (found,) = suite.run_cells([{"agent": str(agent)}], work, folder, processes=1)
        return found["value"], len(list(folder.glob("*.json")))

    assert run(_length) == (3, 1)
    assert run(_length) == (3, 1)
    agent.write_text("three")  # other content
    assert run(_length) == (5, 2)
    monkeypatch.setattr("allocgym.__version__", "99")  # another version
    assert run(_length) == (5, 3)
    assert run(_twice) == (10, 4)  # other work


def _twice(cell):
    return {"value": 2 * _length(cell)["value"]}


def test_cells_lie_in_the_users_cache_or_where_they_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ALLOCGYM_CACHE", str(tmp_path))
    assert Options(1).cells == tmp_path / "cells"
    assert Options(1, out=tmp_path / "out").cells == tmp_path / "out" / "cells"


@pytest.mark.parametrize(("check", "code"), [(True, 1), (False, 0)])
def test_a_missed_must_is_named(capsys, tmp_path, check, code):
    options = Options(seeds=1, out=tmp_path, check=check)
    figures = [Figure("a", 1.0, "> 2", False), Figure("b", 1.0, "> 2", False, "aim")]
    assert suite.finish("demo", figures, {}, 0.0, options) == code
    out = capsys.readouterr()
    last = out.out.strip().splitlines()[-1]
    assert last.startswith("RESULT ")
    assert json.loads(last.removeprefix("RESULT "))["missed"] == ["a"]
    assert ("a" in out.err) == check


def test_pages_are_rendered_from_results(tmp_path):
    results = tmp_path / "results" / "p"
    results.mkdir(parents=True)
    suite.finish("s", [Figure("speed", 3, ">= 2", True)], {}, 0.0, Options(1, out=results))
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results:p/s -->\nold\n<!-- end -->\nafter\n")
    tables.render(page, tmp_path / "results")
    text = page.read_text()
    assert "| speed | 3 | >= 2 | must | met |" in text
    assert "old" not in text
    assert text.startswith("before")
    assert text.endswith("after\n")
