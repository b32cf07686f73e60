"""Activation plans in simulation: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from allocgym.envs.activation_plan.problem import ActivationOutcome, ActivationPlan
from allocgym.envs.activation_plan.profile import Profile, profile_from_json, span, timeline
from allocgym.envs.core import randomness
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.contracts import Spec
from allocgym.envs.core.record import Record
from allocgym.simulators.activation_plan.machine import simulate
from allocgym.simulators.activation_plan.profile import profiles
from allocgym.simulators.activation_plan.scenario import SCENARIOS, ActivationScenario
from allocgym.simulators.core.simulator import Simulator, check_engine


@dataclasses.dataclass(eq=False)
class ActivationState(Record):
    """All there is of a batch of running episodes.

    Attributes:
        action: ``(batch, n)`` decided so far; groups not decided are kept.
        step: ``(batch,)`` groups decided.
        total: ``(batch,)`` groups to decide.
        keep_time: ``(batch,)`` seconds with everything kept.
        spent: ``(batch,)`` groups decided in the last step.
        profile: training steps and budgets.
    """

    action: np.ndarray
    step: np.ndarray
    total: np.ndarray
    keep_time: np.ndarray
    spent: np.ndarray
    profile: Profile


class ActivationSimulator(Simulator[ActivationOutcome, Choice, ActivationState]):
    """Prices activation plans.

    Args:
        problem: `ActivationPlan`.
        scenario: training steps to draw from.
        num_envs: environments in the batch.
        engine: ``"simpy"`` plays each step event by event; ``"twin"`` computes it for the whole batch.
    """

    scenarios: ClassVar[Mapping[str, ActivationScenario]] = SCENARIOS

    def __init__(
        self,
        problem: ActivationPlan,
        scenario: ActivationScenario,
        num_envs: int = 1,
        engine: str = "twin",
    ) -> None:
        check_engine(engine)
        self.engine, self.scenario = engine, scenario
        found = profiles(scenario)
        bank = [profile_from_json(p, problem.n_max, 1.0) for p in found]
        names = [f.name for f in dataclasses.fields(Profile)]
        self._all = Profile(**{k: np.concatenate([getattr(r, k) for r in bank]) for k in names})
        self._peaks = span(self._all)
        self._count = np.array([len(p["size"]) for p in found])
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend=engine,
            claimants=tuple(f"group-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=int(self._count.max()),
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={"budget": scenario.budget},
        )
        super().__init__(spec, problem)

    def _budget(self) -> np.ndarray:
        return self.state.total

    def _fresh(self, seeds: np.ndarray) -> ActivationState:
        drawn = randomness.uniform(randomness.stream(seeds, "step", 2), 0)
        which = (drawn[0] * len(self._count)).astype(np.int64)
        budget = self.scenario.budget
        share = 0.1 + 0.8 * drawn[1] if budget is None else np.full(len(seeds), budget)
        low, high = (peak[which] for peak in self._peaks)
        # A hair above the lowest peak, so that recomputing everything is within it.
        limit = (low + share * (high - low)) * (1 + 1e-9)
        profile = dataclasses.replace(self._all.rows(which), budget=limit)
        none, keep = np.zeros(len(seeds), np.int64), np.zeros(profile.size.shape, np.int64)
        return ActivationState(
            action=keep,
            step=none,
            total=self._count[which].astype(np.int64),
            keep_time=timeline(profile, keep)[0],
            spent=none,
            profile=profile,
        )

    def _step(self, state: ActivationState, decision: Choice) -> ActivationState:
        action, rows = state.action.copy(), np.arange(len(state.step))
        on = (state.step < state.total) & (decision.pick >= 0)
        at = np.minimum(state.step, action.shape[1] - 1)
        action[rows, at] = np.where(on, decision.pick, action[rows, at])
        spent = on.astype(np.int64)
        return dataclasses.replace(state, action=action, step=state.step + on, spent=spent)

    def _outcome(self, state: ActivationState) -> ActivationOutcome:
        profile, action = state.profile, state.action
        if self.engine == "simpy":
            pairs = [simulate(profile, action, row) for row in range(len(action))]
            seconds, peak = (np.array(v) for v in zip(*pairs, strict=True))
        else:
            seconds, peak = timeline(profile, action)
        done = state.step >= state.total
        return ActivationOutcome(
            spent=state.spent,
            seconds=np.where(done & (state.spent > 0), seconds, 0.0),
            ready=profile.present,
            done=done,
            profile=profile,
            action=action,
            step=state.step,
            time=seconds,
            peak=peak,
            keep_time=state.keep_time,
        )
