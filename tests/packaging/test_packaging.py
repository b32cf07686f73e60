import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import allocgym

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("agents", "benchmarks", "envs", "real_backend", "simulators")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
MODULES = sorted(
    ".".join(["allocgym", *path.relative_to(ROOT).with_suffix("").parts])
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
# What may be missing on a machine with the core alone.
EXTRAS = ("torch", "stable_baselines3", "ray", "cma", "safetensors", "matplotlib")


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "allocgym", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_the_list_of_packages_is_the_folders_there_are():
    found = {
        ".".join(["allocgym", *path.parent.relative_to(ROOT).parts])
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("__init__.py")
    }
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == {"allocgym", *found}


def test_every_folder_with_modules_is_a_package():
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").exists(), path


def test_nothing_else_lies_at_the_root():
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_tests_are_no_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_data_that_ships_is_there():
    for package, patterns in SETTINGS["tool"]["setuptools"]["package-data"].items():
        folder = ROOT.joinpath(*package.split(".")[1:])
        for pattern in patterns:
            if "pretrained" not in pattern:
                assert list(folder.glob(pattern)), f"{package}: {pattern}"


def test_the_version_is_that_of_the_distribution():
    from importlib import metadata

    assert metadata.version("allocgym") == allocgym.__version__


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    try:
        importlib.import_module(name)
    except ImportError as error:
        missing = str(error.name or error)
        if not any(extra in missing for extra in EXTRAS):
            raise
        pytest.skip(f"needs {missing}")


def test_list_names_what_there_is(tmp_path):
    done = run("list", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("data-mixing", "continual-pretraining", "twin", "uniform"):
        assert word in done.stdout
    assert not done.stderr


def test_a_wrong_agent_is_one_sentence_and_exit_code_2(tmp_path):
    done = run("deploy", "data-mixing", "--agent", "nope", "--folder", "f", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("allocgym: agent: no 'nope'") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "f").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["deploy", "data-mixng"],
        ["deploy", "data-mixing", "--backend", "twinn"],
        ["deploy", "data-mixing", "--backend", "twin", "--scenario", "scrach"],
        ["deploy", "data-mixing", "--backend", "twin", "--set", "horizon"],
        ["deploy", "data-mixing", "--backend", "twin", "--set", "horizonn=3"],
        ["deploy", "data-mixing", "--backend", "twin", "--max-change", "7"],
        ["deploy", "data-mixing", "--backend", "twin", "--agent", "oracle-static"],
        ["deploy", "data-mixing", "--backend", "twin", "--set", "num_envs=2"],
        ["evaluate", "data-mixing", "--agents", "nope"],
        ["resume", "nowhere"],
        ["report", "nowhere"],
    ],
    ids=" ".join,
)
def test_every_mistake_is_one_sentence(arguments, tmp_path, monkeypatch, capsys):
    from allocgym.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["allocgym", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.err.startswith("allocgym: ") and told.err.count("\n") == 1


@pytest.mark.parametrize(
    "extra", [[], ["--max-cost", "0"], ["--max-seconds", "0"], ["--shadow", "natural"]], ids=str
)
def test_a_deployment_leaves_a_report(extra, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from allocgym.__main__ import main

    arguments = ["deploy", "data-mixing", "--backend", "twin", "--folder", "run", *extra]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["allocgym", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert left >= {"run.json", "journal.jsonl", "ledger.json", "report.html", "decisions.parquet"}
