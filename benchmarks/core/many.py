"""A thousand controllers of a thousand periods in one process, and one of a hundred thousand.

``python -m allocgym.benchmarks.core.many [CONTROLLERS] [PERIODS] [LONG]`` prints what memory they take
and how long the long one takes to be opened again. All of them are told what one simulated run comes to.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.controller import Controller
from allocgym.envs.core.builder import build

PROBLEM, AGENT = "prb-slicing", "user-proportional"


def memory() -> int:
    """Bytes of this process that are in memory (Linux)."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def run(folder: Path, controllers: int, periods: int) -> Iterator[int]:
    """Steer so many runs side by side; yield the periods done after each.

    Args:
        folder: of the runs' folders.
        controllers: open at once; each holds two files open.
        periods: of each.
    """
    backend = build(PROBLEM, "twin", None, 1, horizon=periods)
    first = backend.reset(np.arange(1))
    every = []
    for number in range(controllers):
        agent = catalogue.make(AGENT, backend.problem)
        every.append(Controller(agent, backend.spec, folder / f"{number:04d}"))
        every[-1].tell(first)
    try:
        for period in range(periods):
            asked = [one.ask() for one in every]
            outcome = backend.spend(asked[0].decision)
            for one in every:
                one.tell(outcome)
            yield period + 1
    finally:
        for one in every:
            one.close()


def measure(controllers: int, periods: int, long: int) -> dict[str, Any]:
    """Return the figures: bytes and seconds."""
    with tempfile.TemporaryDirectory() as folder:
        for _ in run(Path(folder), 2, 2):
            pass  # what is imported and compiled counts for nobody
    found: dict[str, Any] = {"controllers": controllers, "periods": periods}
    with tempfile.TemporaryDirectory() as folder:
        before = memory()
        begun = time.perf_counter()
        for done in run(Path(folder), controllers, periods):
            if done in (1, periods // 2, periods):
                found[f"MB after {done} periods"] = round((memory() - before) / 1e6, 1)
        found["microseconds a period"] = round(
            1e6 * (time.perf_counter() - begun) / controllers / periods, 1
        )
    with tempfile.TemporaryDirectory() as folder:
        before = memory()
        for _ in run(Path(folder), 1, long):
            pass
        found[f"MB after {long} periods of one"] = round((memory() - before) / 1e6, 1)
        backend = build(PROBLEM, "twin", None, 1, horizon=long)
        agent = catalogue.make(AGENT, backend.problem)
        begun = time.perf_counter()
        Controller(agent, backend.spec, Path(folder) / "0000").close()
        found["seconds to open that one again"] = round(time.perf_counter() - begun, 2)
    return found


if __name__ == "__main__":
    print("RESULT " + json.dumps(measure(*map(int, sys.argv[1:] or (1000, 1000, 100_000)))))
