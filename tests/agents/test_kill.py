"""`kill -9` at any moment, then `allocgym resume`: everything but seconds is as undisturbed."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from allocgym.__main__ import main
from allocgym.envs.core.journal import Journal

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

PERIODS = 5
ARGUMENTS = [
    "deploy",
    "data-mixing",
    "--agent",
    "skill-it",
    "--backend",
    "real",
    "--scenario",
    "scratch",
    "--seed",
    "3",
    "--set",
    "steps=20",
    "--set",
    f"horizon={PERIODS}",
    "--set",
    "valid_windows=4",
    "--set",
    "test_windows=4",
    "--set",
    "device=cpu",
]


def command(monkeypatch, *arguments):
    """Run a command in this process: importing torch again takes longer than training."""
    monkeypatch.setattr(sys, "argv", ["allocgym", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code


def kept(folder):
    """What must be equal: all of the journal but measured seconds, and the books."""
    journal = Journal(folder / "journal.jsonl")
    journal.close()
    for entry in journal.entries:
        entry["data"].pop("seconds", None)
    return journal.entries, json.loads((folder / "ledger.json").read_text())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steady") / "run"
    with pytest.MonkeyPatch.context() as patch:
        command(patch, *ARGUMENTS, "--folder", str(folder))
    entries, books = kept(folder)
    assert len(entries) == 2 * PERIODS + 1 and books["spent"] == books["granted"]
    return entries, books


@pytest.mark.chaos
@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 4, 9])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path, monkeypatch, undisturbed, lines):
    folder, log = tmp_path / "run", tmp_path / "log"
    journal = folder / "journal.jsonl"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "allocgym", *ARGUMENTS, "--folder", str(folder)],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(12000):
            written = journal.read_bytes().count(b"\n") if journal.exists() else 0
            if written >= lines or process.poll() is not None:
                break
            threading.Event().wait(0.01)
        process.kill()
        assert process.wait(timeout=60) == -signal.SIGKILL, log.read_text()[-2000:]
    assert not (folder / "ledger.json").exists()
    command(monkeypatch, "resume", str(folder))
    assert kept(folder) == undisturbed
    assert (folder / "report.html").exists()
