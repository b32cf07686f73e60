"""Training: a trainer's name in, an agent file out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import allocgym
from allocgym.agents.core import agent_file
from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.run_folder import digest, versions
from allocgym.envs.core.builder import build, check_scenario
from allocgym.envs.core.contracts import Backend, Problem
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.registry import entry, load

Progress = Callable[[int, float], None]


@dataclasses.dataclass
class Training:
    """What a trainer is asked for.

    Attributes:
        problem: id of the problem.
        scenario: distribution of instances to train on; its name.
        trainer: name of the trainer.
        iterations: of the trainer.
        seed: of everything random.
        arguments: by keyword: the trainer's own (see `take`), the rest is `build`'s.
        out: agent file to be written.
        progress: told (iterations done, score so far).
        checkpoint: from which the trainer goes on, and in which it keeps where it stands.
    """

    problem: str
    scenario: str
    trainer: str
    iterations: int
    seed: int
    arguments: dict[str, Any]
    out: Path
    progress: Progress
    checkpoint: Checkpoint = dataclasses.field(default_factory=Checkpoint)

    def take(self, name: str, default: Any) -> Any:
        """Take one of the trainer's own arguments out of what was given."""
        return self.arguments.pop(name, default)

    def build(self, num_envs: int, **defaults: Any) -> Backend:
        """Build the problem on its batched simulator; what was given goes before ``defaults``."""
        backend = entry(self.problem).vector_backend
        return build(self.problem, backend, self.scenario, num_envs, **(defaults | self.arguments))


@dataclasses.dataclass
class Trained:
    """What a trainer returns.

    Attributes:
        agent: has ``to_file()``, which returns kind, settings and tensors (or None).
        problem: what it decides.
        information: what should be recorded of the training.
    """

    agent: Any
    problem: Problem
    information: dict[str, Any]


def train(
    problem: str,
    out: Path,
    scenario: str | None = None,
    trainer: str | None = None,
    iterations: int | None = None,
    seed: int = 0,
    arguments: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train an agent in the simulator and write its file.

    A training that was killed goes on where it stood when it is called again with the same arguments:
    what it keeps meanwhile lies in the folder ``<out>.training``.

    Args:
        problem: id of the problem.
        out: the agent file.
        scenario: to train in (default: the problem's own).
        trainer: one of the problem's (default: the first).
        iterations: of the trainer (default: the trainer's own).
        seed: of everything random.
        arguments: of the trainer, the problem, the scenario and the back end, by keyword.
        progress: told (iterations done, score so far).

    Returns:
        What was recorded of the training.

    Raises:
        AllocgymError: no such problem, trainer, scenario or argument; ``out`` cannot be written; another
            training to the same file was interrupted.
        OwnedError: another process trains to the same file.
    """
    found = entry(problem)
    if not found.trainers:
        raise AllocgymError(f"trainer: {problem!r} has none")
    name = trainer or next(iter(found.trainers))
    if name not in found.trainers:
        raise unknown("trainer", name, found.trainers)
    target, usual = found.trainers[name]
    agent_file.check_writable(out)
    where = scenario or found.scenario
    check_scenario(problem, found.vector_backend, where)
    asked = Training(
        problem,
        where,
        name,
        usual if iterations is None else iterations,
        seed,
        dict(arguments or {}),
        Path(out),
        progress or (lambda done, score: None),
    )
    note = {"scenario": where, "arguments": {k: str(v) for k, v in (arguments or {}).items()}}
    folder = asked.out.with_name(f"{asked.out.name}.training")
    with Checkpoint(folder, _identity(asked)) as asked.checkpoint:
        trained: Trained = load(target)(asked)
        information = {**trained.information, **note}
        kind, settings, tensors = trained.agent.to_file()
        agent_file.save(out, trained.problem.plain(), kind, settings, tensors, information)
    return information


def _identity(asked: Training) -> dict[str, Any]:
    """Return all that decides what a training comes to; of files named in it, their content."""

    def content(value: Any) -> Any:
        if isinstance(value, (str, Path)) and Path(value).is_file():
            return f"sha256:{digest(Path(value))}"
        return str(value)

    names = ("problem", "scenario", "trainer", "iterations", "seed")
    return {
        **{name: content(getattr(asked, name)) for name in names},
        "arguments": {name: content(value) for name, value in sorted(asked.arguments.items())},
        "versions": {**versions(), "allocgym": allocgym.__version__},
    }
