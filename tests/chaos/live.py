"""A run that can be hurt: the twin simulator of data mixing, with checkpoints where asked for.

As a script: ``live.py FOLDER SEED KEPT [LINES]`` deploys or resumes, and kills itself with SIGKILL after
so many more lines of the journal, or in the middle of writing the next one where LINES ends in ``.5``.
"""

import dataclasses
import os
import pickle
import signal
import sys
from pathlib import Path

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Guards
from allocgym.envs.core.builder import make_backend
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import Journal, atomic
from allocgym.envs.data_mixing.problem import DataMixing

HORIZON = 5


def restartable(backend):
    """Give a simulator checkpoints, as real back ends have them."""
    begin = backend.reset

    def reset(seeds, where=None):
        backend.seeds = seeds
        return begin(seeds, where)

    def checkpoint(path):
        with atomic(path, "wb") as file:
            pickle.dump((backend.seeds, backend.get_state()), file)

    def restore(path):
        try:
            seeds, state = pickle.loads(Path(path).read_bytes())
        except Exception as error:
            raise CorruptFileError(f"{path}: damaged ({error})") from error
        reset(seeds)
        backend.set_state(state)

    backend.reset, backend.checkpoint, backend.restore = reset, checkpoint, restore
    capabilities = backend.spec.capabilities | {"restart"}
    backend.spec = dataclasses.replace(backend.spec, capabilities=capabilities)
    return backend


def deployment(folder, seed=0, kept=True, agent="odm", **guards):
    """A deployment in a folder, new or taken up again."""
    problem = DataMixing()
    backend = make_backend(problem, "twin", scenario="low-resource", horizon=HORIZON)
    guards = Guards(fallback=catalogue.make("random", problem), **guards)
    if isinstance(agent, str):
        agent = catalogue.make(agent, problem)
    return Deployment(restartable(backend) if kept else backend, agent, folder, seed, guards)


def run(folder, seed=0, kept=True, **arguments):
    """Run to the end and let go of the folder; return the books."""
    live = deployment(folder, seed, kept, **arguments)
    try:
        live.run()
    finally:
        live.close()
    return live


def _die_after(lines):
    """Kill this process when so many lines are written."""
    append, left = Journal.append, [float(lines)]

    def counted(self, entry):
        if left[0] == 0.5:
            os.write(self._file.fileno(), b'%08d 0badc0de {"kind":"outc' % len(self))
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, entry)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.append = counted


if __name__ == "__main__":
    folder, seed, kept, *lines = sys.argv[1:]
    if lines:
        _die_after(lines[0])
    try:
        ended = run(Path(folder), int(seed), kept == "kept")
    except AllocgymError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(int(np.sum(ended.backend.ledger.spent)))
