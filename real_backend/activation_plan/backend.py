"""Activation plans on this machine: choices are recorded, the last one executes the plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.activation_plan.problem import ActivationOutcome, ActivationPlan
from allocgym.envs.activation_plan.profile import profile_from_json, timeline
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.untrusted import loads
from allocgym.real_backend.activation_plan import calibration
from allocgym.real_backend.activation_plan.measure import measure
from allocgym.real_backend.activation_plan.scenario import PlanScenario, table
from allocgym.real_backend.core.shape import MODELS


class TorchPlan(Backend[ActivationOutcome, Choice]):
    """Runs a training step of a small GPT under the plan once every group is decided.

    Until then outcomes are predictions, and not ``measured``. The last outcome holds the measured peak
    and seconds; it is not ``valid`` where the measurement failed. Gradients that differ from keep-all's
    raise.

    Args:
        problem: `ActivationPlan`.
        scenario: model, device, budget.
    """

    scenarios: ClassVar[Mapping[str, PlanScenario]] = table()
    batched = False
    measured = True

    def __init__(self, problem: ActivationPlan, scenario: PlanScenario) -> None:
        self.scenario = scenario
        groups = 2 * MODELS[scenario.name]["layers"]
        if groups > problem.n_max:
            raise AllocgymError(f"n_max: {groups} groups, {problem.n_max} rows; raise n_max")
        self.fitted = _profile(scenario)
        self.groups = len(self.fitted["size"])
        self._profile = profile_from_json(self.fitted, problem.n_max, scenario.budget)
        self._profile.budget = self._profile.budget * (1 + 1e-9)
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend="torch",
            claimants=tuple(f"group-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=self.groups,
            batch_size=1,
            clock="wall",
            details={"device": scenario.device, "rate": scenario.rate},
        )
        super().__init__(spec, problem)

    def _budget(self) -> np.ndarray:
        return np.array([self.groups])

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> ActivationOutcome:
        return self._predicted(np.zeros((1, self.spec.n_max), np.int64), 0)

    def _spend(self, decision: Choice) -> ActivationOutcome:
        step = int(self.outcome.step[0])
        action = self.outcome.action.copy()
        action[0, step] = decision.pick[0]
        outcome = self._predicted(action, step + 1)
        return self._measured(outcome) if step + 1 == self.groups else outcome

    def _predicted(self, action: np.ndarray, step: int) -> ActivationOutcome:
        """What the fitted profile says of a plan so far."""
        seconds, peak = timeline(self._profile, action)
        return ActivationOutcome(
            spent=np.array([int(step > 0)]),
            seconds=np.zeros(1),
            ready=self._profile.present.copy(),
            done=np.array([step >= self.groups]),
            profile=self._profile,
            action=action,
            step=np.array([step]),
            time=seconds,
            peak=peak,
            keep_time=timeline(self._profile, np.zeros_like(action))[0],
        )

    def _measured(self, outcome: ActivationOutcome) -> ActivationOutcome:
        """The outcome with what a run of the whole plan took."""
        s = self.scenario
        plan = outcome.action[0, : self.groups].tolist()
        keep, ours = measure(s.name, [plan], s.repeats, s.rate, s.device)["plans"]
        figures = np.array([[ours["seconds"]], [float(ours["peak"])], [keep["seconds"]]])
        outcome.valid = (np.isfinite(figures) & (figures > 0)).all(0)
        if outcome.valid[0]:
            outcome.measured = np.ones(1, bool)
            outcome.time, outcome.peak, outcome.keep_time = figures
            outcome.seconds = outcome.time.copy()
        return outcome


def _profile(scenario: PlanScenario) -> dict[str, Any]:
    """The fitted profile of a scenario: read, or measured now."""
    if scenario.profile is None:
        return calibration.calibrate(
            scenario.name, scenario.repeats, scenario.rate, scenario.device
        )
    try:
        data = loads(Path(scenario.profile).read_text())
        profile_from_json(data, len(data["size"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AllocgymError(
            f"profile: {scenario.profile} is not a calibration ({error})"
        ) from error
    found: dict[str, Any] = data
    return found
