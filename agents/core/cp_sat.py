"""OR-Tools' CP-SAT under a budget of CPU time."""

from __future__ import annotations

import threading
import time
from typing import Any

from allocgym.envs.core.errors import missing_extra


def library() -> Any:
    """OR-Tools' ``cp_model``.

    Raises:
        ImportError: OR-Tools is not installed.
    """
    try:
        from ortools.sat.python import cp_model
    except ImportError as error:
        raise missing_extra("ortools", "solvers") from error
    return cp_model


def solve(model: Any, seconds: float, seed: int = 0) -> tuple[Any, Any]:
    """Solve on one worker until the process has used ``seconds`` of CPU time.

    CP-SAT itself only knows wall-clock limits, which on a busy machine are less than they say.

    Returns:
        The solver, which holds the values, and the status.
    """
    solver = library().CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_time_in_seconds = 20 * seconds + 10
    begun, over = time.process_time(), threading.Event()

    def watch() -> None:
        while not over.wait(min(seconds / 50, 0.05)):
            if time.process_time() - begun >= seconds:
                solver.stop_search()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return solver, solver.solve(model)
    finally:
        over.set()
        watcher.join()
