"""Real processes, killed with SIGKILL: at a line, in the middle of a line, again during resume."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from allocgym.envs.core.journal import Journal

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
SCRIPT = Path(__file__).with_name("live.py")


def start(folder, seed, kept, *lines):
    words = [folder, seed, "kept" if kept else "none", *lines]
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def ended(process):
    said, error = process.communicate(timeout=120)
    return process.returncode, said, error


def kept_of(folder):
    with Journal.reading(folder / "journal.jsonl") as journal:
        return journal.entries, (folder / "ledger.json").read_text()


@pytest.mark.parametrize("kept", [True, False], ids=["checkpoints", "none"])
@pytest.mark.parametrize("case", range(8))
def test_a_process_killed_and_killed_again_ends_as_if_nothing_had_happened(
    live, tmp_path, count, kept, case
):
    rng = np.random.default_rng([case, kept])
    steady = live.run(tmp_path / "steady", seed=case, kept=kept)
    expected = (steady.controller.journal.entries, (steady.folder / "ledger.json").read_text())
    run = tmp_path / "run"
    left = 2 * live.HORIZON + 1
    for _ in range(3):
        if left <= 2:
            break
        lines = int(rng.integers(1, min(left, 5)))
        torn = bool(rng.integers(2))
        code, _, error = ended(start(run, case, kept, lines + 0.5 * torn))
        assert code == -signal.SIGKILL, error
        left -= lines
        count("a process killed" + (" in a line" if torn else ""), "went on")
    live.run(run, seed=case, kept=kept)
    assert kept_of(run) == expected


@pytest.mark.parametrize("case", range(4))
def test_two_processes_in_one_folder_do_the_work_once(live, tmp_path, count, case):
    live.run(tmp_path / "steady", seed=case)
    both = [start(tmp_path / "run", case, True) for _ in range(2)]
    codes = []
    for code, _, error in map(ended, both):
        assert code in (0, 2), error
        assert code == 0 or "is at work there" in error
        codes.append(code)
        count("two processes at once", "refused" if code else "went on")
    assert 0 in codes  # the other was refused, or came when all was done
    assert kept_of(tmp_path / "run") == kept_of(tmp_path / "steady")
