import json

import numpy as np
import pandas as pd
import pytest
import runs_tables
from typer.testing import CliRunner

pytest.importorskip("torch")

from allocgym.benchmarks.commands import app
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.data_mixing import olmix, own_runs
from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.core import public_data
from allocgym.simulators.data_mixing.table import Facts


def call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A folder with a fit that the command wrote."""
    folder = tmp_path_factory.mktemp("own")
    ratios, metrics, tokens = runs_tables.write(folder)
    given = ["--ratios", ratios, "--metrics", metrics, "--tokens", tokens, "--each-metric"]
    call("calibrate", "data-mixing", *given, "--out", folder)
    return folder


def test_a_recommendation_is_written_as_json_and_csv(calibrated):
    fit = calibrated / "fit.json"
    call("recommend", fit, "--weights", "coding=2,reading=1", "--out", calibrated / "r.json")
    static = json.loads((calibrated / "r.json").read_text())["static"]
    assert sum(static["mixture"].values()) == pytest.approx(1, abs=1e-5)
    assert static["gain"] >= static["gain interval"][0]
    call("recommend", fit, "--run-tokens", "6e9", "--epochs", "1", "--out", calibrated / "r.csv")
    frame = pd.read_csv(calibrated / "r.csv")
    assert list(frame["domain"]) == list(runs_tables.DOMAINS)
    assert (frame["static"] * 6e9 <= 1e9 * np.arange(1, 5) + 1e4).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (("--weights", "coding"), "weights: name=number"),
        (("--weights", "cooding=1"), "Did you mean 'coding'"),
        (("--out", "r.txt"), "out: a .json or .csv"),
        (("--kl", "-1"), "kl_weight"),
    ],
)
def test_what_cannot_be_asked_for_is_told(options, message, calibrated):
    with pytest.raises(AllocgymError, match=message):
        call("recommend", calibrated / "fit.json", *options)


def test_a_fit_that_cannot_rank_recommends_nothing_unless_told_to(tmp_path):
    runs_tables.write(tmp_path, runs=20, noise=50.0)
    tables = ["--ratios", tmp_path / "ratios.csv", "--metrics", tmp_path / "metrics.csv"]
    assert "NO PROMISE" in call("calibrate", "data-mixing", *tables, "--out", tmp_path)
    with pytest.raises(AllocgymError, match="promises nothing"):
        call("recommend", tmp_path / "fit.json")
    assert "NO PROMISE" in call("recommend", tmp_path / "fit.json", "--anyway")


@pytest.mark.parametrize(
    "options",
    [("--ratios", "r.csv"), ("--metrics", "m.csv"), ("--phases",), ("--tokens", "t.json")],
)
def test_half_a_source_is_told(options, tmp_path):
    with pytest.raises(AllocgymError, match=r"expected|only with|cannot be read"):
        call("calibrate", "data-mixing", *options, "--out", tmp_path)


def test_our_own_run_folders_are_read(tmp_path):
    for number, agent in enumerate(("uniform", "natural", "odm")):
        given = ["--backend", "twin", "--scenario", "scratch", "--set", "domains=[4,4]"]
        call("deploy", "data-mixing", *given, "--agent", agent, "--folder", tmp_path / f"{number}")
    runs = own_runs.from_folders(tmp_path, Facts())
    assert runs.shares.shape == (3, 10, 4) and runs.families == runs.domains
    np.testing.assert_allclose(runs.shares.sum(2), 1)
    assert runs.switching.tolist() == [False, False, True]
    with pytest.raises(AllocgymError, match="no finished run"):
        own_runs.from_folders(tmp_path / "0", Facts())


def test_an_agent_trains_on_a_fit(calibrated):
    setting = ["--set", f"fit={calibrated / 'fit.json'}", "--set", "batch=8"]
    out = calibrated / "agent.zip"
    call("train", "data-mixing", *setting, "--iterations", 2, "--out", out)
    given = [*setting[:2], "--agents", out, "--seeds", 2]
    assert "uniform" in call("evaluate", "data-mixing", *given)


def test_musts_without_data_are_not_met(monkeypatch, capsys):
    monkeypatch.delenv(public_data.VARIABLE, raising=False)
    assert olmix.suite(Options(seeds=1, check=True)) == 1
    assert "public tables of Olmix" in capsys.readouterr().err
