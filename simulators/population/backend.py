"""The population simulator as a back end: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import columns
from allocgym.envs.core.contracts import Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan, PopulationOutcome
from allocgym.simulators.core.simulator import Simulator, check_engine
from allocgym.simulators.population import costs, families
from allocgym.simulators.population.sampling import PopulationState, every_knob, sample
from allocgym.simulators.population.scenario import SCENARIOS, PopulationScenario

WORST = 1e6
"""Loss reported for a member that has diverged."""


class PopulationSimulator(Simulator[PopulationOutcome, Plan, PopulationState]):
    """Members that carry state: copies are exact, knobs may change afterwards, members may diverge.

    Args:
        problem: `Population`; its knobs must be ones the scenario's family supports.
        scenario: to draw episodes from.
        num_envs: environments in the batch.
        engine: ``"simpy"`` plays each period's cost event by event, ``"twin"`` by recursion.
    """

    scenarios: ClassVar[Mapping[str, PopulationScenario]] = SCENARIOS

    def __init__(
        self,
        problem: Population,
        scenario: PopulationScenario,
        num_envs: int = 1,
        engine: str = "twin",
    ) -> None:
        check_engine(engine)
        if scenario.members > problem.n_max:
            raise AllocgymError(
                f"n_max: the scenario has {scenario.members} members, given {problem.n_max}"
            )
        self.family = families.FAMILIES[scenario.family]
        for knob in problem.knobs:
            if knob not in self.family.knobs:
                raise AllocgymError(
                    f"knobs: {knob!r} changes nothing in family {scenario.family!r}; "
                    f"{', '.join(self.family.knobs)} do"
                )
        self.scenario = scenario
        self._finish = costs.twin_finish if engine == "twin" else costs.simpy_finish
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend=engine,
            claimants=tuple(f"member-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="optimiser step of a member",
            horizon=scenario.horizon[1] * (scenario.members if scenario.asynchronous else 1),
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={"scenario": dataclasses.asdict(scenario), "knobs": problem.knobs},
        )
        super().__init__(spec, problem)
        self.problem: Population = problem

    @classmethod
    def suits(cls, scenario: PopulationScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: more rows where the scenario has more members."""
        return {"n_max": scenario.members} if scenario.members > 8 else {}

    def full(self, knobs: np.ndarray) -> np.ndarray:
        """Every knob of the family from those decided, ``(k, n, batch)`` both."""
        return every_knob(self.family, self.problem.knobs, knobs)

    def _budget(self) -> np.ndarray:
        return self.state.instance.total

    def _fresh(self, seeds: np.ndarray) -> PopulationState:
        return sample(self.scenario, seeds, self.spec.n_max, self.problem.knobs)

    def _step(self, state: PopulationState, decision: Plan) -> PopulationState:
        inst = state.instance
        decision.check_form(inst)
        present = columns(inst.present)
        donor, steps = columns(decision.donor), columns(decision.steps)
        copies = (donor != np.arange(len(donor))[:, None]) & state.ready
        knobs = decision.knobs.transpose(2, 1, 0)
        members = self.family.train(
            state.law, families.copied(state.members, donor), self.full(knobs), steps
        )
        loss = self.family.loss(state.law, members)
        alive = np.take_along_axis(state.alive, donor, 0) & np.isfinite(loss)
        heldout = np.where(alive, loss, WORST)
        spent = steps.sum(0)
        left = state.left - spent
        work, failed = self._work(state, steps, copies)
        ready, seconds, clock = self._advance(state, work, left)
        noise = np.exp(randomness.normal(state.report, state.period + 1) * inst.noise)
        after = dataclasses.replace(
            state,
            members=members,
            knobs=knobs,
            donor=donor,
            used=np.take_along_axis(state.used, donor, 0) + steps,
            heldout=heldout,
            scores=np.where(ready, heldout * noise, np.take_along_axis(state.scores, donor, 0)),
            alive=alive,
            ready=ready,
            left=left,
            period=state.period + 1,
            clock=clock,
            spent=spent,
            seconds=seconds,
            failure=(failed & present).sum(0),
        )
        over = state.left <= 0
        return after.where(over, self._resting(state)) if over.any() else after

    def _resting(self, state: PopulationState) -> PopulationState:
        """A period in which nothing happens: episodes that are over stay what they were."""
        n, batch = state.used.shape
        none = np.zeros(batch, np.int64)
        own = np.tile(np.arange(n)[:, None], batch)
        return dataclasses.replace(
            state, donor=own, spent=none, seconds=np.zeros(batch), failure=none
        )

    def _work(
        self, state: PopulationState, steps: np.ndarray, copies: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Seconds of device time of each member's period, and who failed in it, ``(n, batch)`` each."""
        u = randomness.uniform(state.cost, state.period).reshape(3, *steps.shape)
        jitter = randomness.normal(state.cost[: len(steps)], state.period)
        return costs.work_seconds(self.scenario.cost, steps, copies, jitter, u[1], u[2])

    def _advance(
        self, state: PopulationState, work: np.ndarray, left: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Who reports next ``(n, batch)``, how many seconds later ``(batch,)``, and the clocks then."""
        present, cost = columns(state.instance.present), self.scenario.cost
        if not self.scenario.asynchronous:
            return present, np.where(present, self._finish(cost, work), 0).max(0), state.clock
        # Members have their devices' speed shared out evenly and do not wait for each other.
        crowd = np.maximum(present.sum(0) / cost.devices, 1.0)
        remaining = np.where(state.ready, work * crowd, state.clock)
        soonest = np.where(present, remaining, np.inf).min(0)
        reports = present & (remaining <= soonest + 1e-9)
        clock = np.where(present, remaining - soonest, 0.0)
        # With nothing left to give, everybody is waited for.
        last = left <= 0
        longest = np.where(present, remaining, 0).max(0)
        return (
            np.where(last, present, reports),
            np.where(last, longest, soonest),
            np.where(last, 0.0, clock),
        )

    def _outcome(self, state: PopulationState) -> PopulationOutcome:
        ready = columns(state.ready)
        return PopulationOutcome(
            spent=state.spent,
            seconds=state.seconds,
            ready=ready,
            failure=state.failure,
            done=state.left <= 0,
            scores=columns(state.scores.clip(1e-12, WORST)),
            heldout=columns(state.heldout.clip(1e-12, WORST)),
            alive=columns(state.alive),
            knobs=np.ascontiguousarray(state.knobs.transpose(2, 1, 0)),
            donor=columns(state.donor),
            used=columns(state.used),
            grant=np.minimum(ready.sum(1) * state.instance.interval, state.left),
            left=state.left,
            period=state.period,
            instance=state.instance,
        )
