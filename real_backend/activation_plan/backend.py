"""Activation plans on this machine: choices are recorded, the last one executes the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.activation_plan.problem import ActivationOutcome, ActivationPlan, GroupChoice
from allocgym.envs.activation_plan.profile import profile_from_json, timeline
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.activation_plan import calibration
from allocgym.real_backend.activation_plan.measure import MODELS, measure


class TorchPlan(Backend[ActivationOutcome, GroupChoice]):
    """Runs a training step of a small GPT under the plan once every group is decided.

    Until then nothing has been measured: outcomes are predictions, ``valid`` is False. The last
    outcome holds the measured peak and seconds. Gradients that differ from keep-all's raise.

    Args:
        problem: `ActivationPlan`.
        scenario: a model of `MODELS`.
        num_envs: 1.
        budget: 0 (everything recomputed) to 1 (everything kept).
        profile: JSON file of an earlier calibration; without it, pilots are run first.
        device: ``"cpu"`` or ``"cuda"`` (the CUDA path has not been run).
        repeats: steps measured.
        rate: bytes a second of the slow tier on CPU.
    """

    def __init__(
        self,
        problem: ActivationPlan,
        scenario: str = "gpt-narrow",
        num_envs: int = 1,
        budget: float = 0.5,
        profile: str | None = None,
        device: str = "cpu",
        repeats: int = 3,
        rate: float = 2e9,
    ) -> None:
        if num_envs != 1:
            raise AllocgymError(f"num_envs: 1 expected on a real machine, given {num_envs}")
        if not 0 <= budget <= 1:
            raise AllocgymError(f"budget: 0 to 1 expected, given {budget}")
        self.model = "gpt-narrow" if scenario in ("recorded", "gpt-gpu") else scenario
        if self.model not in MODELS:
            raise AllocgymError(
                f"scenario: one of {', '.join(MODELS)} expected, given {scenario!r}"
            )
        self.device, self.repeats, self.rate = device, repeats, rate
        if profile is None:
            data = calibration.calibrate(self.model, repeats, rate, device)
        else:
            data = json.loads(Path(profile).read_text())
        self.fitted: dict[str, Any] = data
        self.groups = len(data["size"])
        self._profile = profile_from_json(data, problem.n_max, budget)
        self._profile.budget = self._profile.budget * (1 + 1e-9)
        spec = Spec(
            problem=problem.id,
            scenario=self.model,
            backend="torch",
            claimants=tuple(f"group-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=self.groups,
            batch_size=1,
            clock="wall",
            details={"device": device, "rate": rate},
        )
        super().__init__(spec, problem)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> ActivationOutcome:
        action = np.zeros((1, self.problem.n_max), np.int64)
        return self._tell(action, 0, None)

    def _spend(self, decision: GroupChoice) -> ActivationOutcome:
        action = self.outcome.action.copy()
        step = int(self.outcome.step[0])
        action[0, step] = decision.pick[0]
        measured = None
        if step + 1 == self.groups:
            plan = action[0, : self.groups].tolist()
            got = measure(self.model, [plan], self.repeats, self.rate, self.device)
            measured = got["plans"]
        return self._tell(action, step + 1, measured)

    def _tell(
        self, action: np.ndarray, step: int, measured: list[dict[str, Any]] | None
    ) -> ActivationOutcome:
        seconds, peak = timeline(self._profile, action)
        keep = timeline(self._profile, np.zeros_like(action))[0]
        if measured is not None:
            seconds, peak = (
                np.array([measured[1]["seconds"]]),
                np.array([float(measured[1]["peak"])]),
            )
            keep = np.array([measured[0]["seconds"]])
        done = np.array([step >= self.groups])
        return ActivationOutcome(
            spent=np.array([int(step > 0)]),
            seconds=seconds if measured else np.zeros(1),
            ready=self._profile.present.copy(),
            valid=np.array([measured is not None]),
            failure=np.zeros(1, np.int64),
            done=done,
            profile=self._profile,
            action=action,
            step=np.array([step]),
            time=seconds,
            peak=peak,
            keep_time=keep,
        )

    def _budget(self) -> np.ndarray:
        return np.array([self.groups])
