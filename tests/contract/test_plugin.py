"""A package from outside is a full citizen: installed, it is driven by name through every command."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "own-problem"
version = "0.1"

[project.entry-points."allocgym.problems"]
study-hours = "own_problem:ENTRY"

[tool.setuptools]
py-modules = ["own_problem"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder on the path in which the package is installed, entry point included."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    shutil.copy(EXAMPLES / "own_problem.py", source)
    (source / "pyproject.toml").write_text(PROJECT)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--target", str(site), str(source)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"pip cannot build here: {done.stderr[-200:]}")
    return site


@pytest.fixture
def run(site, tmp_path):
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}

    def command(*arguments, **more):
        done = subprocess.run(
            [sys.executable, "-m", "allocgym", *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
            timeout=120,
            check=False,
            **more,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    command.environment = environment
    command.folder = tmp_path
    return command


def test_it_is_listed_trained_evaluated_and_benched(run):
    assert "study/StudyHours-v0" in run("list")
    assert "CMA-ES" in run("train", "study-hours", "--iterations", "2", "--out", "a.zip")
    told = run("evaluate", "study-hours", "--agents", "a.zip", "--seeds", "5", "--set", "hours=7")
    assert "a.zip" in told and "evenly" in told and "mean mark" in told
    assert "RESULT" in run("bench", "study-hours", "--quick", "--check")


def test_it_is_an_environment_by_name_alone(run):
    script = (
        "import gymnasium as gym; e = gym.make('allocgym:study/StudyHours-v0', weeks=2); e.reset(seed=0);"
        "print(e.step(e.action_space.sample())[2], e.step(e.action_space.sample())[2]);"
        "print(gym.make_vec('allocgym:study/StudyHours-v0', num_envs=3).num_envs)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=run.environment,
        check=False,
    )
    assert done.stdout == "False True\n3\n", done.stderr


def test_a_killed_deployment_goes_on(run):
    """kill -9 in the middle, then resume: decisions and outcomes are those of an undisturbed run."""
    whole = ("deploy", "study-hours", "--agent", "untrained", "--set", "weeks=400")
    run(*whole, "--folder", "undisturbed")
    folder = run.folder / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "allocgym", *whole, "--folder", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=run.folder,
        env=run.environment,
    )
    for line in process.stdout:
        if "period 40/" in line:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    assert not (folder / "ledger.json").exists()
    assert "period 400/400" in run("resume", str(folder))

    def told(where):
        lines = (run.folder / where / "journal.jsonl").read_text().splitlines()
        return [json.loads(line.partition("{")[1] + line.partition("{")[2]) for line in lines]

    def plain(entries):
        return [e["data"] for e in entries if e.get("kind") in ("outcome", "decision")]

    assert plain(told("killed")) == plain(told("undisturbed"))
    books = [
        json.loads((run.folder / f / "ledger.json").read_text()) for f in ("killed", "undisturbed")
    ]
    assert books[0] == books[1] and books[0]["spent"] == [8000]


def test_a_broken_package_is_warned_about_and_left_out(site, run):
    broken = site / "broken-1.0.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (broken / "entry_points.txt").write_text("[allocgym.problems]\nx = no_such_module:ENTRY\n")
    try:
        assert "data-mixing" in run("list")
    finally:
        shutil.rmtree(broken)
