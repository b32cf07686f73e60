"""Train to a file; as a script, be killed with SIGKILL right after so many checkpoints.

``trainee.py OUT CASE [CHECKPOINTS]``
"""

import os
import signal
import sys
from pathlib import Path

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.training import train

SHORT = {"horizon": 4}
CASES = {
    "gradient": ("data-mixing", "scratch", "gradient", 6, {**SHORT, "batch": 4}),
    "cma": ("curve-budget", None, "cma", 3, {"batch": 2}),
    "portfolio": ("packing", None, "cma", 2, {"members": 1}),
    "ppo": ("population", None, "ppo", 4, {**SHORT, "batch": 4}),
    "masked ppo": ("memory-mapping", "train", "masked-ppo", 3 * 64 * 64, {}),
    "dqn": ("prb-slicing", "generated", "dqn", 3, {"mix": "111"}),
    "table": ("prb-slicing", "generated", "table", 1, {"mix": "111"}),
}


def run(out, case):
    problem, scenario, trainer, iterations, arguments = CASES[case]
    return train(problem, Path(out), scenario, trainer, iterations, 3, dict(arguments))


def eager(after=0):
    """Keep at every occasion, whatever it costs; be killed after so many."""
    keep, left = Checkpoint.keep, [after]

    def kept(self, state):
        keep(self, state)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Checkpoint.due = property(lambda self: self.folder is not None)
    Checkpoint.keep = kept


if __name__ == "__main__":
    out, case, *after = sys.argv[1:]
    eager(*map(int, after))
    run(out, case)
