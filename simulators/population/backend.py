"""The population simulator as a back end: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan, PopulationOutcome
from allocgym.simulators.population import costs, families, scenarios

ENGINES = ("simpy", "twin")
WORST = 1e6
"""Loss reported for a member that has diverged."""


class PopulationSimulator(Backend[PopulationOutcome, Plan]):
    """Members that carry state: copies are exact, knobs may change afterwards, members may diverge.

    Args:
        problem: `Population`; its knobs must be ones the scenario's family supports.
        engine: ``"simpy"`` plays each period's cost event by event, ``"twin"`` by recursion.
        scenario: name of a scenario or a `scenarios.Scenario`.
        num_envs: environments in the batch.
        overrides: fields of the scenario, by keyword.
    """

    _members: families.Arrays
    _knobs: np.ndarray
    _used: np.ndarray
    _alive: np.ndarray
    _period: np.ndarray
    _left: np.ndarray
    _clock: np.ndarray
    _streams: np.ndarray
    _costs: np.ndarray

    changing = (
        "_members",
        "_knobs",
        "_used",
        "_heldout",
        "_scores",
        "_alive",
        "_period",
        "_left",
        "_clock",
    )

    def __init__(
        self,
        problem: Population,
        engine: str = "twin",
        scenario: str | scenarios.Scenario = "unknown-edge",
        num_envs: int = 1,
        **overrides: Any,
    ) -> None:
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        self.scenario = scenarios.make(scenario, **overrides)
        self.family = families.FAMILIES[self.scenario.family]
        self.engine = engine
        horizon = self.scenario.horizon[1]
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend=engine,
            claimants=tuple(f"member-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="optimiser step of a member",
            horizon=horizon * (self.scenario.members if self.scenario.asynchronous else 1),
            batch_size=num_envs,
            capabilities=frozenset({"state", "oracle"}),
            details={"scenario": dataclasses.asdict(self.scenario), "knobs": problem.knobs},
        )
        super().__init__(spec, problem)
        self.problem: Population = problem
        self._sampled: scenarios.Sampled | None = None

    @property
    def sampled(self) -> scenarios.Sampled:
        """Instances and true parameters of the running episodes: for oracles and tests."""
        if self._sampled is None:
            raise AllocgymError("backend: call reset() first")
        return self._sampled

    def _budget(self) -> np.ndarray:
        return self.sampled.instance.total

    def _full(self, knobs: np.ndarray) -> np.ndarray:
        """Every knob of the family, ``(k, n, batch)``: those not decided at the middle of their range."""
        rows = []
        for name in self.family.knobs:
            if name in self.problem.knobs:
                rows.append(knobs[self.problem.knobs.index(name)])
            else:
                rows.append(np.full(knobs.shape[1:], np.sqrt(np.prod(self.family.ranges()[name]))))
        return np.stack(rows)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> PopulationOutcome:
        n, batch = self.spec.n_max, self.spec.batch_size
        new = scenarios.sample(self.scenario, seeds, n, self.problem.knobs)
        steps = np.zeros((n, batch), np.int64)
        fresh: dict[str, Any] = {
            "_members": self.family.begin(new.parameters, self._full(new.knobs), steps),
            "_knobs": new.knobs,
            "_used": steps,
            "_alive": np.ones((n, batch), bool),
            "_period": np.zeros(batch, np.int64),
            "_left": new.instance.total,
            "_clock": np.zeros((n, batch)),
            "_streams": randomness.stream(seeds, "report", n),
            "_costs": randomness.stream(seeds, "cost", 3 * n),
        }
        if where.all() or self._sampled is None:
            self._sampled = new
            for name, value in fresh.items():
                setattr(self, name, value)
        else:
            old = self._sampled
            self._sampled = scenarios.Sampled(
                old.instance.where(where, new.instance),
                _mix(where, new.parameters, old.parameters),
                np.where(where, new.knobs, old.knobs),
                np.where(where, new.noise, old.noise),
            )
            for name, value in fresh.items():
                setattr(self, name, _mix(where, value, getattr(self, name)))
        loss = self.family.loss(self.sampled.parameters, self._members)
        self._heldout = loss
        noise = self.sampled.noise
        measured = loss * np.exp(randomness.normal(self._streams, self._period) * noise)
        old_scores = getattr(self, "_scores", measured)
        self._scores = np.where(where, measured, old_scores) if not where.all() else measured
        everyone = self.sampled.instance.present.T
        before = None if where.all() or self._outcome is None else self._outcome

        def kept(value: np.ndarray, name: str) -> np.ndarray:
            if before is None:
                return value
            old = getattr(before, name)
            mask = where.reshape(-1, *(1,) * (value.ndim - 1))
            return np.where(mask, value, old)

        own = np.tile(np.arange(n), (batch, 1))
        return self._report(
            kept(np.zeros(batch, np.int64), "spent"),
            kept(np.zeros(batch), "seconds"),
            kept(np.zeros(batch, np.int64), "failure"),
            kept(everyone.T, "ready"),
            kept(own, "donor"),
        )

    def _spend(self, decision: Plan) -> PopulationOutcome:
        inst = self.sampled.instance
        ready = self.outcome.ready.T & inst.present.T
        donor = decision.donor.T
        steps = decision.steps.T
        own = np.arange(self.spec.n_max)[:, None]
        copies = (donor != own) & ready
        self._members = families.copied(self._members, donor)
        self._used = np.take_along_axis(self._used, donor, 0) + steps
        self._knobs = np.moveaxis(decision.knobs, 2, 0).transpose(0, 2, 1)
        alive = np.take_along_axis(self._alive, donor, 0)
        self._members = self.family.train(
            self.sampled.parameters, self._members, self._full(self._knobs), steps
        )
        loss = self.family.loss(self.sampled.parameters, self._members)
        self._alive = alive & np.isfinite(loss)
        self._heldout = np.where(self._alive, loss, WORST)
        period, self._period = self._period, self._period + 1
        spent = steps.sum(0)
        self._left = self._left - spent
        u = randomness.uniform(self._costs, period).reshape(3, *steps.shape)
        jitter = randomness.normal(self._costs[: len(steps)], period)
        work, failed = costs.work_seconds(self.scenario.cost, steps, copies, jitter, u[1], u[2])
        reports, seconds = self._advance(work, ready)
        noise = np.exp(randomness.normal(self._streams, self._period) * self.sampled.noise)
        self._scores = np.where(reports, self._heldout * noise, self._last_scores(donor))
        return self._report(
            spent, seconds, (failed & inst.present.T).sum(0), reports.T, decision.donor
        )

    def _last_scores(self, donor: np.ndarray) -> np.ndarray:
        return np.take_along_axis(self._scores, donor, 0)

    def _advance(self, work: np.ndarray, ready: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Who reports next, ``(n, batch)``, and how many seconds later, ``(batch,)``."""
        present = self.sampled.instance.present.T
        if not self.scenario.asynchronous:
            finish = costs.twin_finish if self.engine == "twin" else costs.simpy_finish
            done = finish(self.scenario.cost, work)
            return present, np.where(present, done, 0).max(0)
        # Members have their devices' speed shared out evenly and do not wait for each other.
        crowd = np.maximum(present.sum(0) / self.scenario.cost.devices, 1.0)
        remaining = np.where(ready, work * crowd, self._clock)
        soonest = np.where(present, remaining, np.inf).min(0)
        reports = present & (remaining <= soonest + 1e-9)
        self._clock = np.where(present, remaining - soonest, 0.0)
        last = self._left <= 0
        # With nothing left to give, everybody is waited for.
        longest = np.where(present, remaining, 0).max(0)
        self._clock = np.where(last, 0.0, self._clock)
        return np.where(last, present, reports), np.where(last, longest, soonest)

    def _report(
        self,
        spent: np.ndarray,
        seconds: np.ndarray,
        failure: np.ndarray,
        ready: np.ndarray,
        donor: np.ndarray,
    ) -> PopulationOutcome:
        inst = self.sampled.instance
        batch = self.spec.batch_size
        grant = np.minimum((ready & inst.present).sum(1) * inst.interval, self._left)
        return PopulationOutcome(
            spent=spent,
            seconds=seconds,
            ready=ready & inst.present,
            valid=np.ones(batch, bool),
            failure=failure,
            done=self._left <= 0,
            scores=self._scores.T.clip(1e-12, WORST),
            heldout=self._heldout.T.clip(1e-12, WORST),
            alive=self._alive.T,
            knobs=np.ascontiguousarray(self._knobs.transpose(2, 1, 0)),
            donor=donor,
            used=self._used.T,
            grant=grant,
            left=self._left,
            period=self._period,
            instance=inst,
        )


def _mix(where: np.ndarray, new: Any, old: Any) -> Any:
    """Take the environments in ``where`` (the last axis) from ``new``."""
    if isinstance(new, dict):
        return {k: np.where(where, v, old[k]) for k, v in new.items()}
    return np.where(where, new, old)


def simpy_backend(problem: Population, **arguments: Any) -> PopulationSimulator:
    """Build the SimPy reference (see `PopulationSimulator`)."""
    return PopulationSimulator(problem, engine="simpy", **arguments)


def twin_backend(problem: Population, **arguments: Any) -> PopulationSimulator:
    """Build the batched twin (see `PopulationSimulator`)."""
    return PopulationSimulator(problem, engine="twin", **arguments)
