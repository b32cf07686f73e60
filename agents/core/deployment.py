"""A Problem, a Backend and an Agent make a deployment: journalled, guarded, resumable.

Order of writes, so that a kill at any moment loses and double-spends nothing: the decision is
journalled, carried out, the back end's whole state is checkpointed, the outcome is journalled. On
resume the newest checkpoint says what was carried out; what came after is carried out again under
the same key, and charged once.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from allocgym.agents.core.agent import Agent
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.guards import Guards
from allocgym.envs.core.contracts import Backend
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.journal import write_json

PACKAGES = ("allocgym", "gymnasium", "numpy", "simpy", "torch", "stable-baselines3", "ray")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe_run(folder: Path, arguments: dict[str, Any]) -> None:
    """Write ``run.json``: what was run, with what, where."""
    machine = {"platform": platform.platform(), "processor": platform.machine()}
    write_json(
        folder / "run.json",
        {"arguments": arguments, "versions": versions(), "machine": machine, "argv": sys.argv[1:]},
    )


class Deployment:
    """One live run under one agent.

    Args:
        backend: what is spent on; batch size 1.
        agent: who decides.
        folder: run folder; if it holds a journal, the run is taken up where it stopped.
        seed: of the episode and the agent.
        guards: limits on the agent.
        incumbent: acts instead of the agent, which only proposes (shadow mode).
        progress: called after every period with (period, horizon, keyed decision, outcome).
        permit: asked (key, units) before a decision is carried out, for runs that share a budget; it
            must answer a key it has answered before the same way. False stops the run.
    """

    def __init__(
        self,
        backend: Backend,
        agent: Agent,
        folder: Path | str,
        seed: int = 0,
        guards: Guards | None = None,
        incumbent: Agent | None = None,
        progress: Callable[[int, int, Any, Any], None] | None = None,
        permit: Callable[[str, int], bool] | None = None,
    ) -> None:
        if backend.spec.batch_size != 1:
            raise AllocgymError(
                f"deployment: a back end with one environment expected, "
                f"given {backend.spec.batch_size}"
            )
        for one in (agent, incumbent):
            if one is not None and one.clairvoyant:
                raise AllocgymError(
                    f"agent: {one.name!r} looks at the true law; it cannot be deployed"
                )
            if one is not None:
                one.peek(backend)
        self.backend = backend
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seed = seed
        self.guards = guards or Guards()
        self.progress = progress
        self.permit = permit
        self.restartable = "restart" in backend.spec.capabilities
        self.controller = Controller(agent, backend.spec, self.folder, seed, self.guards, incumbent)
        self.stopped: str | None = None

    def run(self) -> Controller:
        """Run to the end of the budget (or of a guard's patience) and return the controller."""
        import numpy as np

        self._catch_up(np.array([self.seed]))
        controller, backend = self.controller, self.backend
        while not controller.outcomes[-1].done.all():
            seconds = float(sum(o.seconds[0] for o in controller.outcomes))
            self.stopped = self.guards.stop_reason(seconds, float(backend.ledger.spent[0]))
            if self.stopped:
                break
            keyed = controller.ask()
            units = int(backend.problem.cost(keyed.decision)[0])
            if self.permit is not None and not self.permit(keyed.key, units):
                self.stopped = "the shared budget is spent"
                break
            outcome = backend.spend(keyed.decision)
            self._checkpoint(keyed.period + 1)
            controller.tell(outcome)
            if self.progress is not None:
                self.progress(keyed.period + 1, backend.spec.horizon, keyed, outcome)
        write_json(
            self.folder / "ledger.json", {**backend.ledger.to_json(), "stopped": self.stopped}
        )
        return controller

    def _checkpoint(self, period: int) -> None:
        if not self.restartable:
            return
        folder = self.folder / "checkpoints"
        self.backend.checkpoint(folder / f"period-{period:05d}.ckpt")
        for old in sorted(folder.glob("period-*.ckpt"))[:-2]:
            old.unlink()

    def _catch_up(self, seeds: Any) -> None:
        """Bring the back end to where the journal and the newest checkpoint say it was."""
        controller, backend = self.controller, self.backend
        saved = sorted((self.folder / "checkpoints").glob("period-*.ckpt"))
        done = 0
        if saved:
            done = int(saved[-1].stem.split("-")[1])
            backend.restore(saved[-1])
        else:
            outcome = backend.reset(seeds)
            if not controller.outcomes:
                controller.tell(outcome)
        # Carried out and saved, but killed before the outcome was written down.
        if done == len(controller.outcomes):
            controller.tell(backend.outcome)
        # Decided and told, but not in any checkpoint (a back end without them, or lost files).
        for keyed in controller.decisions[done : len(controller.outcomes) - 1]:
            backend.spend(keyed.decision)
            self._checkpoint(keyed.period + 1)
