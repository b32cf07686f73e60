"""Trainings killed with SIGKILL go on and make the same agent."""

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")
pytestmark = [pytest.mark.chaos, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("trainee.py")
CASES = ("gradient", "cma", "portfolio", "ppo", "masked ppo", "dqn", "table")


def start(out, case, *after):
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(out), case, *map(str, after)],
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def holds(path):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(parts.pop("agent.json"))
    description["provenance"].pop("seconds")
    return description, parts


@pytest.mark.parametrize("case", CASES)
def test_a_killed_training_makes_the_same_agent(tmp_path, count, case):
    steady, out = tmp_path / "steady.zip", tmp_path / "killed.zip"
    assert start(steady, case).returncode == 0
    for after in (1, 1):
        died = start(out, case, after)
        assert died.returncode == -signal.SIGKILL, died.stderr
        count("a training killed", "went on")
    ended = start(out, case)
    assert ended.returncode == 0, ended.stderr
    assert holds(out) == holds(steady)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["killed.zip", "steady.zip"]
