"""Schedulers of Ray Tune and Syne Tune as agents: they decide our populations as they would trials.

A scheduler sees what it always sees: trials with configurations, results with a loss and a time. Its
decisions are carried out as plans: a trial that takes over another's checkpoint is a member that
copies, a trial that is stopped or paused is a member without steps. Two things differ from a cluster of
its own. The steps of a period are always spent, so those of stopped members go to the others; and a
population has as many members as it began with, so a scheduler that would start a new trial from
scratch finds no room (one that starts it from another trial's checkpoint does). Results of a period are
handed over one by one in the order of members; an asynchronous scheduler judges each by those before.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Protocol

import numpy as np

from allocgym.agents.population.heuristics import PopulationAgent
from allocgym.envs.core import randomness
from allocgym.envs.core.errors import missing_extra
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan

LOSS, TIME = "loss", "training_iteration"
"""Keys of a result: the measured loss, and the steps of the lineage over those of a period."""

Ranges = dict[str, tuple[float, float]]
Moves = tuple[np.ndarray, list[dict[str, float]], np.ndarray]
"""Donor of each member ``(m,)``, its configuration, and whether it goes on ``(m,)``."""


class Driver(Protocol):
    """One scheduler in charge of one episode."""

    def report(self, times: np.ndarray, losses: np.ndarray, told: np.ndarray) -> Moves:
        """Give the scheduler the results of those ``told``; return what it wants."""
        ...


@contextlib.contextmanager
def _generators(state: list[Any], seed: int) -> Iterator[None]:
    """Let code that draws from Python's and NumPy's global generators draw from its own."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    if state:
        random.setstate(state[0])
        np.random.set_state(state[1])  # noqa: NPY002
    else:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        state[:] = [random.getstate(), np.random.get_state()]  # noqa: NPY002
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002


class TuneDriver:
    """A `ray.tune.schedulers.TrialScheduler`; it is its controller as well, as far as one is needed.

    No cluster is started: the trials are stubs, their checkpoints names of members.
    """

    search_alg = None

    def __init__(self, scheduler: Any, configs: list[dict[str, float]]) -> None:
        try:
            from ray.tune import Checkpoint
            from ray.tune.experiment import Trial
        except ImportError as error:
            raise missing_extra("ray[tune]", "ray") from error
        # It would say at length what every member copied.
        logging.getLogger("ray.tune").setLevel(logging.ERROR)
        self._checkpoint, self._status = Checkpoint, Trial
        self.scheduler = scheduler
        scheduler.set_search_properties(LOSS, "min")
        self.trials = [
            Trial("member", stub=True, config=dict(c), trial_id=f"{i:05d}")
            for i, c in enumerate(configs)
        ]
        for trial in self.trials:
            scheduler.on_trial_add(self, trial)
            trial.status = Trial.RUNNING

    def get_trials(self) -> list[Any]:
        """All trials."""
        return self.trials

    def get_live_trials(self) -> set[Any]:
        """Trials that have not been stopped."""
        return {t for t in self.trials if not t.is_finished()}

    def get_trial(self, trial_id: str) -> Any:
        """The trial of an id."""
        return next((t for t in self.trials if t.trial_id == trial_id), None)

    def pause_trial(self, trial: Any, should_checkpoint: bool = True) -> None:
        """Let a member rest."""
        trial.status = self._status.PAUSED
        if should_checkpoint:
            self._point(trial, trial)

    def stop_trial(self, trial: Any) -> None:
        """Stop a member for good."""
        if trial.status == self._status.RUNNING:
            self.scheduler.on_trial_complete(self, trial, trial.last_result)
        elif not trial.is_finished():
            self.scheduler.on_trial_remove(self, trial)
        trial.status = self._status.TERMINATED

    def _schedule_trial_save(self, trial: Any, result: Any = None) -> Any:
        return self._checkpoint(f"/member-{self.trials.index(trial)}")

    def _point(self, trial: Any, at: Any) -> None:
        from ray.train._internal.session import _TrainingResult

        manager = trial.run_metadata.checkpoint_manager
        manager._latest_checkpoint_result = _TrainingResult(
            checkpoint=self._schedule_trial_save(at), metrics=at.last_result
        )

    def _donor(self, index: int) -> int:
        result: Any = self.trials[index].latest_checkpoint_result
        return index if result is None else int(result.checkpoint.path.rpartition("-")[2])

    def report(self, times: np.ndarray, losses: np.ndarray, told: np.ndarray) -> Moves:
        """See `Driver`."""
        for each in self.trials:
            manager: Any = each.run_metadata.checkpoint_manager
            manager._latest_checkpoint_result = None
        for i in np.flatnonzero(told):
            trial = self.trials[i]
            if trial.status != self._status.RUNNING:
                continue
            result = {
                LOSS: float(losses[i]),
                TIME: float(times[i]),
                "trial_id": trial.trial_id,
                "time_total_s": float(times[i]),
                "config": trial.config,
            }
            decision = self.scheduler.on_trial_result(self, trial, result)
            trial.update_last_result(result)
            if decision == "STOP":
                self.stop_trial(trial)
            elif decision == "PAUSE" and trial.status == self._status.RUNNING:
                self.pause_trial(trial)
        for _ in self.trials:
            chosen = self.scheduler.choose_trial_to_run(self)
            if chosen is None:
                break
            chosen.status = self._status.RUNNING
        donors = np.array([self._donor(i) for i in range(len(self.trials))])
        running = np.array([t.status == self._status.RUNNING for t in self.trials])
        return donors, [dict(t.config) for t in self.trials], running


class SyneDriver:
    """A `syne_tune.optimizer.scheduler.TrialScheduler`: ``suggest`` and ``on_trial_result``."""

    def __init__(self, scheduler: Any, configs: list[dict[str, float]]) -> None:
        try:
            from syne_tune.backend.trial_status import Trial
        except ImportError as error:
            raise missing_extra("syne-tune", "syne") from error
        self.scheduler, self._trial, self._count = scheduler, Trial, 0
        self.slots: list[Any] = [None] * len(configs)
        for i, config in enumerate(configs):
            # It proposes, the population has its own first configurations: those are what it is told.
            scheduler.suggest()
            self._add(i, config)

    def _add(self, slot: int, config: dict[str, Any]) -> None:
        trial = self._trial(self._count, dict(config), datetime(2000, 1, 1))
        self._count += 1
        self.slots[slot] = trial
        self.scheduler.on_trial_add(trial)

    def report(self, times: np.ndarray, losses: np.ndarray, told: np.ndarray) -> Moves:
        """See `Driver`."""
        m = len(self.slots)
        donors, running = np.arange(m), np.array([t is not None for t in self.slots])
        configs = [dict(t.config) if t is not None else {} for t in self.slots]
        freed = []
        place = {t.trial_id: i for i, t in enumerate(self.slots) if t is not None}
        for i in np.flatnonzero(told & running):
            result = {LOSS: float(losses[i]), TIME: float(times[i])}
            decision = self.scheduler.on_trial_result(self.slots[i], result)
            if decision != "CONTINUE":
                if decision == "STOP":
                    self.scheduler.on_trial_complete(self.slots[i], result)
                freed.append(int(i))
        for slot in freed:
            suggestion = self.scheduler.suggest()
            source = None if suggestion is None else suggestion.checkpoint_trial_id
            if suggestion is None or source not in place:
                running[slot], self.slots[slot] = False, None
                continue
            donors[slot] = place[source]
            config = suggestion.config or configs[donors[slot]]
            configs[slot] = dict(config)
            self._add(slot, config)
        return donors, configs, running


class Outside(PopulationAgent):
    """A foreign scheduler for every episode of the batch.

    Args:
        problem: `Population`; its knobs are the keys of configurations.
        make: builds a driver from the ranges of the knobs, the first configurations and a seed.
        name: shown in tables.
    """

    def __init__(
        self,
        problem: Population,
        make: Callable[[Ranges, list[dict[str, float]], int], Driver],
        name: str,
    ) -> None:
        super().__init__(problem)
        self._make, self.name = make, name

    def _start(self) -> None:
        super()._start()
        self._drivers: list[Driver] = []
        self._draws: list[list[Any]] = []

    def _heard(self) -> None:
        out, inst, knobs = self.outcome, self.outcome.instance, self.problem.knobs
        self._donor, self._knobs = self.keep, out.knobs.copy()
        self._weights = inst.present * 1.0
        for row, m in enumerate(inst.present.sum(1)):
            if len(self._drivers) <= row:
                configs = [dict(zip(knobs, map(float, c), strict=True)) for c in out.knobs[row, :m]]
                ends = np.stack([inst.low[row], inst.high[row]], 1).tolist()
                ranges: Ranges = {k: (a, b) for k, (a, b) in zip(knobs, ends, strict=True)}
                seed = int(
                    randomness.generator(self.seed + row, f"outside {self.name}").integers(2**31)
                )
                self._draws.append([])
                with _generators(self._draws[row], seed):
                    self._drivers.append(self._make(ranges, configs, seed))
            if not out.used[row].any():
                continue
            with _generators(self._draws[row], 0):
                times = out.used[row, :m] / inst.interval[row]
                moves = self._drivers[row].report(times, out.scores[row, :m], out.ready[row, :m])
            self._donor[row, :m] = moves[0]
            for i, config in enumerate(moves[1]):
                for k, name in enumerate(knobs):
                    self._knobs[row, i, k] = config.get(name, self._knobs[row, i, k])
            self._weights[row, :m] = moves[2]
            if not moves[2].any():
                self._weights[row, out.scores[row, :m].argmin()] = 1.0

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        return self.plan(self._donor, self._knobs, self._weights)


def tune_agent(problem: Population, scheduler: Callable[[Ranges], Any], name: str) -> Outside:
    """Put a Ray Tune scheduler in charge, such as ``PopulationBasedTraining`` or ``ASHAScheduler``.

    Args:
        problem: `Population`.
        scheduler: builds it from the ranges of the knobs. It minimises `LOSS` over `TIME`, which grows
            by 1 a period; synchronous variants see copies as they are carried out (all at once).
        name: shown in tables.
    """
    return Outside(problem, lambda r, c, s: TuneDriver(scheduler(r), c), name)


def syne_agent(problem: Population, scheduler: Callable[[Ranges, int], Any], name: str) -> Outside:
    """Put a Syne Tune scheduler in charge.

    Args:
        problem: `Population`.
        scheduler: builds it from the ranges of the knobs and a seed; ``metric`` is `LOSS`,
            ``time_attr`` `TIME`.
        name: shown in tables.
    """
    return Outside(problem, lambda r, c, s: SyneDriver(scheduler(r, s), c), name)


def _tune_pbt(ranges: Ranges) -> Any:
    from ray import tune
    from ray.tune.schedulers import PopulationBasedTraining

    space: dict[str, Any] = {k: tune.loguniform(a, b) for k, (a, b) in ranges.items()}
    return PopulationBasedTraining(
        time_attr=TIME,
        perturbation_interval=2,
        hyperparam_mutations=space,
        log_config=False,
        synch=True,
    )


def _tune_asha(ranges: Ranges) -> Any:
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(time_attr=TIME, max_t=10**6, reduction_factor=3, stop_last_trials=False)


def _syne_pbt(ranges: Ranges, seed: int) -> Any:
    from syne_tune.config_space import loguniform
    from syne_tune.optimizer.schedulers.pbt import PopulationBasedTraining

    space = {k: loguniform(a, b) for k, (a, b) in ranges.items()}
    return PopulationBasedTraining(
        space, metric=LOSS, time_attr=TIME, max_t=10**6, perturbation_interval=2, random_seed=seed
    )


def _needed(module: str, package: str, extra: str) -> None:
    """Raise `ImportError` that says what to install, before anything is run."""
    if importlib.util.find_spec(module) is None:
        raise missing_extra(package, extra)


def ray_tune_pbt(problem: Population) -> Outside:
    """Ray Tune's PBT, with the settings of ours."""
    _needed("ray", "ray[tune]", "ray")
    return tune_agent(problem, _tune_pbt, "ray tune's pbt")


def ray_tune_asha(problem: Population) -> Outside:
    """Ray Tune's ASHA, with the settings of ours."""
    _needed("ray", "ray[tune]", "ray")
    return tune_agent(problem, _tune_asha, "ray tune's asha")


def syne_tune_pbt(problem: Population) -> Outside:
    """Syne Tune's PBT, with the settings of ours."""
    _needed("syne_tune", "syne-tune", "syne")
    return syne_agent(problem, _syne_pbt, "syne tune's pbt")
