"""A Problem, a Backend and an Agent make a deployment: journalled, guarded, resumable.

Order of writes, so that a kill at any moment loses and double-spends nothing: the decision is
journalled, carried out, the back end's whole state is checkpointed, the outcome is journalled. On
resume the newest checkpoint that can be trusted says what was carried out; what came after is carried
out again under the same key, and charged once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import allocgym
from allocgym.agents.core import outcome_check
from allocgym.agents.core.agent import Agent
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.guards import Guards
from allocgym.agents.core.run_folder import (
    Checkpoints,
    begun_as,
    compare,
    describe_run,
    versions,
    write_run,
)
from allocgym.envs.core.contracts import Backend, Outcome
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, OutOfBudgetError
from allocgym.envs.core.journal import write_json

__all__ = ["Deployment", "describe_run", "versions"]


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

    Raises:
        OwnedError: another process is at work in the folder.
        AllocgymError: the folder holds another run, or the agents cannot be deployed.
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
        self.seed = seed
        self.guards = guards or Guards()
        self.progress = progress
        self.permit = permit
        self.restartable = "restart" in backend.spec.capabilities
        self.controller = Controller(agent, backend.spec, self.folder, seed, self.guards, incumbent)
        try:
            run = self._identify(agent, incumbent)
        except BaseException:
            self.close()
            raise
        self.checkpoints = Checkpoints(self.folder, run, self.controller.journal)
        self.stopped: str | None = None

    def close(self) -> None:
        """Close the journal and give up the folder; the back end stays open. Idempotent."""
        self.controller.close()

    def run(self) -> Controller:
        """Run to the end of the budget (or of a guard's patience) and return the controller."""
        self._catch_up(np.array([self.seed]))
        controller, backend = self.controller, self.backend
        while not controller.outcomes[-1].done.all():
            self.stopped = controller.stopped
            if self.stopped:
                break
            try:
                keyed = controller.ask()
            except OutOfBudgetError as error:
                self.stopped = str(error).removeprefix("ask: ")
                break
            units = int(backend.problem.cost(keyed.decision)[0])
            self.stopped = self.guards.stop_reason(controller.seconds, controller.spent, units)
            if self.stopped is None and self.permit and not self.permit(keyed.key, units):
                self.stopped = "the shared budget is spent"
            if self.stopped:
                break
            outcome = measured(backend.spend(keyed.decision))
            self._checkpoint(keyed.period + 1)
            controller.tell(outcome)
            if self.progress is not None:
                self.progress(keyed.period + 1, backend.spec.horizon, keyed, outcome)
        self._close_books()
        return controller

    def _close_books(self) -> None:
        """Write what a report needs, so that it can be written again without the back end."""
        memory: Any = self.controller.memory
        write_json(
            self.folder / "ledger.json",
            {
                **self.backend.ledger.to_json(),
                "stopped": self.stopped,
                "objective": float(memory.objective[0]),
                "claimants": list(self.backend.spec.claimants),
                "unit": self.backend.spec.unit,
                "lines": len(self.controller.journal),
            },
        )

    def _identify(self, agent: Agent, incumbent: Agent | None) -> str:
        """Return the hash of the run's identity, checked or, in a new folder, written down."""
        spec = self.backend.spec
        now = {
            "problem": spec.problem,
            "scenario": spec.scenario,
            "backend": spec.backend,
            "seed": self.seed,
            "version": allocgym.__version__,
        }
        begun = begun_as(self.folder)
        if begun is None and self.controller.journal.old == 0:
            named = (("agent", agent), ("fallback", self.guards.fallback), ("shadow", incumbent))
            agents = {role: None if one is None else one.name for role, one in named}
            write_run(self.folder, {**now, **agents})
            begun = begun_as(self.folder)
        if begun is None:
            return ""  # a run of an earlier version, which wrote none
        if (begun.get("parts") or {}).get("overrides") is not None:
            # Described by its arguments, and compared by them: a back end may name an alias's own.
            del now["scenario"]
        compare(self.folder, begun, now)
        return str(begun["hash"])

    def _checkpoint(self, period: int) -> None:
        if self.restartable:
            self.backend.checkpoint(self.checkpoints.path(period))
            self.checkpoints.vouch(period)

    def _catch_up(self, seeds: Any) -> None:
        """Bring the back end to where the journal and the newest good checkpoint say it was."""
        controller, backend = self.controller, self.backend
        done = self._restore()
        if done is None:
            done = 0
            outcome = measured(backend.reset(seeds))
            if controller.outcomes:
                self._compare(outcome, 0)
            else:
                controller.tell(outcome)
        # Carried out and saved, but killed before the outcome was written down.
        if done == len(controller.outcomes):
            controller.tell(measured(backend.outcome))
        # Decided and told, but not in any checkpoint (a back end without them, or lost files).
        for period in range(done, len(controller.outcomes) - 1):
            outcome = measured(backend.spend(controller.decisions[period].decision))
            self._compare(outcome, period + 1)
            self._checkpoint(period + 1)

    def _compare(self, outcome: Outcome, period: int) -> None:
        """Refuse to go on where a simulator, done again, does not do what it did."""
        if self.restartable or self.backend.spec.clock != "charged" or not outcome.valid.all():
            return  # a machine may round otherwise, and takes its own time
        if outcome != self.controller.outcomes[period]:
            raise AllocgymError(
                f"{self.folder}: done again, period {period} does not come out as it is in the journal; "
                f"the back end or its data are no longer what the run was begun with"
            )

    def _restore(self) -> int | None:
        """Go on from the newest checkpoint that can be read; return its period, None without one."""
        for period, path in self.checkpoints.trusted():
            try:
                self.backend.restore(path)
            except CorruptFileError:
                continue
            return period
        return None


def measured(outcome: Outcome) -> Outcome:
    """Mark an outcome in which a back end measured NaN or infinity as one not to be trusted."""
    if outcome.valid.all() and outcome_check.untrusted(outcome) is not None:
        return dataclasses.replace(outcome, valid=np.zeros_like(outcome.valid))
    return outcome
