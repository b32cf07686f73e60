"""Ray Tune under our orders: a `TrialScheduler` that is handed a function from reports to orders.

Trials move in step. Each trains the steps it was given, reports, and is paused (Tune keeps its
checkpoint). When all have reported, the function is asked once; then every trial gets its donor's
checkpoint and its own configuration, and goes on. Copies are resolved when all members are at rest, so
nothing is copied from the future, and a trial that lost its node repeats the period it was in, from the
checkpoint it started it with.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from allocgym.envs.core.contracts import Spec
from allocgym.envs.core.errors import AllocgymError, missing_extra
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan, PopulationOutcome
from allocgym.real_backend.population.experiment import Experiment

try:
    from ray.train._internal.session import _TrainingResult
    from ray.tune.experiment import Trial
    from ray.tune.schedulers import TrialScheduler
except ImportError as error:
    raise missing_extra("ray[tune]", "ray") from error

WORST = 1e6
"""Loss reported for a member that has diverged or is lost."""


@dataclasses.dataclass(frozen=True)
class Orders:
    """What every trial does next.

    Attributes:
        donor: index of the trial whose checkpoint is taken over, one a trial; its own keeps.
        config: what changes in each trial's configuration.
        steps: results each trial shall report before it is asked again; 0 leaves it at rest.
    """

    donor: Sequence[int]
    config: Sequence[Mapping[str, Any]]
    steps: Sequence[int]


Reports = list[dict[str, Any] | None]
"""Latest result of every trial; None where it has failed for good."""


class LockstepScheduler(TrialScheduler):
    """Runs a fixed set of trials period by period, as a function decides.

    Args:
        members: trials there will be.
        decide: from the latest reports to orders, or None to end the experiment.
        first: results every trial reports before the first decision.
        stay: trials keep their processes between periods. Faster by the start of a process a trial and
            period; there must be room for all at once, the trainable must have ``reset_config``, and
            every result must be checkpointed (``checkpoint_frequency=1``).
    """

    _supports_buffered_results = False

    def __init__(
        self,
        members: int,
        decide: Callable[[Reports], Orders | None],
        first: int = 1,
        stay: bool = False,
    ) -> None:
        super().__init__()
        if members < 1 or first < 1:
            raise AllocgymError(f"members, first: integers >= 1 expected, given {members}, {first}")
        self.members, self.periods, self.copies, self.stay = members, 0, 0, stay
        self._decide: Callable[[Reports], Orders | None] | None = decide
        self._trials: list[Trial] = []
        self._due = [first] * members
        self._begun = [0] * members
        self._latest: Reports = [None] * members
        self._told = [False] * members

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy of its settings on disk; a live run cannot be part of it."""
        return {**self.__dict__, "_decide": None, "_trials": []}

    @property
    def trials(self) -> list[Trial]:
        """The trials by index of the member."""
        return list(self._trials)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Number trials as they come; one that is started again after a failure is known."""
        if trial in self._trials:
            return
        if len(self._trials) == self.members:
            raise AllocgymError(f"members: {self.members} trials expected, Tune has more")
        self._trials.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Count reports; a trial that has made those it was asked for rests."""
        i = self._trials.index(trial)
        if result["training_iteration"] < self._begun[i] + self._due[i]:
            return TrialScheduler.CONTINUE
        self._latest[i], self._told[i] = dict(result), True
        return TrialScheduler.NOOP if self.stay else TrialScheduler.PAUSE

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Forget what it reported in this period: it will be started again, or it is lost."""
        self._told[self._trials.index(trial)] = False
        if trial in getattr(tune_controller, "_resetting_trials", ()):
            # Lost while its process was given the next period: it starts as any other.
            tune_controller._resetting_trials.discard(trial)
            tune_controller._unstage_trial_with_resources(trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: Any) -> None:
        """Keep the last report of a trial that ends by itself."""
        i = self._trials.index(trial)
        self._latest[i], self._told[i] = dict(result), True

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing is held for a trial that is stopped."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Decide once everybody is at rest; name a trial that has steps to make."""
        if len(self._trials) == self.members and all(self._rests(t) for t in self._trials):
            self._next(tune_controller)
        waiting = [
            t
            for t, told in zip(self._trials, self._told, strict=False)
            if not told and t.status in (Trial.PENDING, Trial.PAUSED)
        ]
        # Those not yet in the queue first, so that several start at once.
        waiting.sort(key=lambda t: t.status == Trial.PENDING)
        return waiting[0] if waiting else None

    def debug_string(self) -> str:
        """Describe the state in a line."""
        return f"{type(self).__name__}: {self.periods} periods, {self.copies} copies"

    def _rests(self, trial: Trial) -> bool:
        if trial.status in (Trial.ERROR, Trial.TERMINATED):
            return True
        told = self._told[self._trials.index(trial)]
        return told and trial.status in self._resting and not trial.is_saving

    @property
    def _resting(self) -> tuple[str, ...]:
        return (Trial.PAUSED, Trial.RUNNING) if self.stay else (Trial.PAUSED,)

    def _next(self, tune_controller: Any) -> None:
        if self._decide is None:
            raise AllocgymError("scheduler: it was read back from disk; give Tune a new one")
        live = [t.status in self._resting for t in self._trials]
        reports: Reports = [
            None if t.status == Trial.ERROR else r
            for t, r in zip(self._trials, self._latest, strict=True)
        ]
        orders = self._decide(reports) if any(live) else None
        if orders is None:
            for trial in self._trials:
                tune_controller.stop_trial(trial)
            return
        self.periods += 1
        # All at once: what a donor has now, whatever it becomes itself.
        held = [(t.latest_checkpoint_result, r) for t, r in zip(self._trials, reports, strict=True)]
        for i, trial in enumerate(self._trials):
            donor = int(orders.donor[i])
            if not live[i]:
                continue
            kept, report = held[donor]
            if donor != i and kept is not None and report is not None:
                manager: Any = trial.run_metadata.checkpoint_manager
                manager._latest_checkpoint_result = _TrainingResult(
                    checkpoint=copy.copy(kept.checkpoint), metrics=kept.metrics
                )
                self._latest[i] = dict(report)
                self.copies += 1
            trial.set_config({**trial.config, **orders.config[i]})
            latest = self._latest[i]
            self._begun[i] = 0 if latest is None else int(latest["training_iteration"])
            self._due[i] = int(orders.steps[i])
            self._told[i] = self._due[i] == 0
            if self.stay and self._due[i] and trial.status == Trial.RUNNING:
                self._again(tune_controller, trial)

    @staticmethod
    def _again(tune_controller: Any, trial: Trial) -> None:
        """Configuration and checkpoint into the process that the trial has, as Tune reuses one."""
        if trial.temporary_state.ray_actor is None:
            # Its node went while it was at rest.
            tune_controller._set_trial_status(trial, Trial.PAUSED)
        else:
            tune_controller._staged_trials.add(trial)
            tune_controller._actor_cache.increase_max(trial.placement_group_factory)
            tune_controller._schedule_trial_reset(trial, trial.config, trial.experiment_tag)


class PopulationScheduler(LockstepScheduler):
    """Any Ray Tune experiment under a controller of populations.

    A result that a trial reports is one step. The trials' own first configurations are used until each
    has reported ``interval`` times; what they report then is the state before the controller's episode.
    The trainable must save and load checkpoints and take a new configuration from them on.

    Args:
        decide: told every outcome, the last one included; returns a plan, or None to end. With a
            controller: ``tell`` the outcome, return what it is ``ask``-ed (see
            ``examples/ray_tune_population.py``).
        problem: `Population`, whose knobs are keys of the trials' configurations.
        experiment: what the trials are and report.
    """

    def __init__(
        self,
        decide: Callable[[PopulationOutcome], Plan | None],
        problem: Population,
        experiment: Experiment,
    ) -> None:
        super().__init__(experiment.members, self._orders, experiment.interval)
        self.instance = experiment.instance(problem)
        self._ask, self.problem, self.experiment = decide, problem, experiment
        self.outcome: PopulationOutcome | None = None
        self._plan: Plan | None = None

    def __getstate__(self) -> dict[str, Any]:
        """See `LockstepScheduler`."""
        plain = dataclasses.replace(self.experiment, loss=float)
        return {**super().__getstate__(), "_ask": None, "experiment": plain}

    def _orders(self, reports: Reports) -> Orders | None:
        self.outcome = out = self._report(reports)
        self._plan = plan = self._ask(out)
        if plan is None or out.done[0]:
            return None
        m = self.members
        config = [
            {k: float(v) for k, v in zip(self.problem.knobs, row, strict=True)}
            for row in plan.knobs[0, :m]
        ]
        return Orders(plan.donor[0, :m].tolist(), config, plan.steps[0, :m].tolist())

    def _report(self, reports: Reports) -> PopulationOutcome:
        """What the trials reported as an outcome; those lost or not finite are not alive."""
        n, inst, last, plan = self.problem.n_max, self.instance, self.outcome, self._plan
        asked = self.experiment
        keys = (asked.metric, asked.heldout or asked.metric)
        scores, heldout = np.ones((2, 1, n))
        alive = np.ones((1, n), bool)
        for i, report in enumerate(reports):
            both = [math.nan if report is None else asked.loss(report[k]) for k in keys]
            alive[0, i] = all(math.isfinite(x) for x in both)
            scores[0, i], heldout[0, i] = both if alive[0, i] else (WORST, WORST)
        if last is None or plan is None:
            own = np.arange(n)[None]
            knobs = np.tile(np.sqrt(inst.low * inst.high)[:, None], (1, n, 1))
            for i, trial in enumerate(self._trials):
                knobs[0, i] = [float(trial.config[k]) for k in self.problem.knobs]
            donor, used, spent, left = own, np.zeros((1, n), np.int64), np.zeros(1), inst.total
            period = np.zeros(1, np.int64)
        else:
            donor, knobs, spent = plan.donor, plan.knobs, plan.steps.sum(1)
            used = np.take_along_axis(last.used, donor, 1) + plan.steps
            left, period = last.left - spent, last.period + 1
        seconds = max((float(r.get("time_this_iter_s", 0.0)) for r in reports if r), default=0.0)
        fair = inst.present.sum(1) * inst.interval
        return PopulationOutcome(
            spent=np.asarray(spent, np.int64),
            seconds=np.array([seconds]),
            ready=inst.present.copy(),
            done=left <= 0,
            scores=np.clip(scores, 1e-12, WORST),
            heldout=heldout,
            alive=alive,
            knobs=knobs,
            donor=donor,
            used=used,
            grant=np.minimum(fair, left),
            left=left,
            period=period,
            instance=inst,
        )

    @property
    def spec(self) -> Spec:
        """The run, for an agent's ``begin`` or a `Controller`."""
        problem = self.problem
        return Spec(
            problem=problem.id,
            scenario="ray-tune",
            backend="ray",
            claimants=tuple(f"member-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="result of a trial",
            horizon=int(self.instance.horizon[0]),
            batch_size=1,
            clock="wall",
            details={"metric": self.experiment.metric, "knobs": problem.knobs},
        )
