"""A suite that is killed takes its workers with it, and goes on with the cells it has."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from allocgym.benchmarks.core import suite
from allocgym.envs.core.errors import AllocgymError

pytestmark = [pytest.mark.chaos, pytest.mark.slow]


def slow(cell):
    """Say that it runs; the cell ``wait`` never ends."""
    print(cell["name"], flush=True)
    if cell["name"] == "wait":
        signal.pause()
    return {"pid": os.getpid()}


def fatal(cell):
    os.kill(os.getpid(), signal.SIGKILL)


SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_cells as here
from pathlib import Path
names = ("one", "wait", "wait")
cells = [{{"name": name, "number": number}} for number, name in enumerate(names)]
here.suite.run_cells(cells, here.slow, Path(sys.argv[1]), 2)
"""


def test_killed_suites_leave_no_worker(tmp_path, count):
    # Every worker holds the other end of this pipe: it closes when the last of them has gone.
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    seen = [process.stdout.readline().strip() for _ in range(3)]
    assert sorted(seen) == ["one", "wait", "wait"]
    process.kill()
    process.communicate(timeout=60)
    count("a suite killed", "went on")


def test_a_worker_that_is_killed_is_told_in_a_sentence(tmp_path, count):
    with pytest.raises(AllocgymError, match="begin it again: cells that are finished are kept"):
        suite.run_cells([{"name": "x"}], fatal, tmp_path, 1)
    count("a worker killed", "refused")
