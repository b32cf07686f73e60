"""What a real run of rollout budgets is: tasks, model, rows and rollouts, estimator; and named ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from allocgym.envs.core.errors import AllocgymError, FileNeededError, unknown
from allocgym.envs.core.scenario import Scenario, within
from allocgym.real_backend.rollout_budget import grpo, tasks
from allocgym.real_backend.rollout_budget.model import PRESETS

LANGUAGE = "reasoning"
MOST_HELD = 2048
"""Rollouts of a cell in an evaluation."""
NOT_HASHED = ("name", "fixed")
"""Fields that say nothing of the run itself (and that older checkpoints do not know)."""


@dataclasses.dataclass(frozen=True)
class RealRolloutScenario(Scenario):
    """One kind of run. What a simulated scenario has too goes by the same name.

    Attributes:
        regime: of tasks: ``"easy"``, ``"hard-tail"``, ``"mixed-cost"``, or ``"reasoning"``: a
            Hugging Face model on tasks of reasoning-gym (see `language`).
        preset: of the character model.
        model: folder or hub name of the Hugging Face model.
        answer: most tokens of a Hugging Face model's answer.
        each: training prompts a cell (fewer than 200 invite memorisation).
        held: held-out prompts a cell.
        samples: rollouts of each held-out prompt in an evaluation.
        rows: prompts offered in an update.
        budget: rollouts of an update.
        low: least rollouts of an offered prompt.
        high: most rollouts of an offered prompt in an update.
        multiple: counts are multiples of this.
        rounds: periods in an update.
        horizon: updates.
        evaluate_every: updates between evaluations (the accuracy seen in between is the last).
        lr: learning rate of Adam.
        estimator: ``"grpo"``, ``"dr-grpo"`` or ``"rloo"``.
        loss_weight: ``"rollout"`` or ``"prompt"``.
        temperature: of sampling.
        warm_steps: supervised steps before; the result is cached.
        warm_seed: of the warm start (the same model for every seed of a run).
        retention: of beliefs from visit to visit.
        prior_strength: pseudo-rollouts of a prompt's prior, which follows its cell's running mean.
        price: accuracy that a mean update's tokens cost.
        token_seconds: charged per generated token.
        update_seconds: charged per update.
        fixed: which of ``rows`` and ``budget`` were asked for: those do not follow the problem's rows.
    """

    regime: str = "easy"
    preset: str = "tiny"
    model: str = ""
    answer: int = within(64, 1, 4096)
    each: int = within(200, 1, 10_000)
    held: int = within(16, 1, 1000)
    samples: int = within(8, 1, 1000)
    rows: int = within(64, 1, 4096)
    budget: int = within(512, 1, 2**16)
    low: int = within(0, 0, 4096)
    high: int = within(128, 1, 4096)
    multiple: int = within(1, 1, 4096)
    rounds: int = within(1, 1, 64)
    horizon: int = within(80, 1, 1_000_000)
    evaluate_every: int = within(10, 1, 1_000_000)
    lr: float = within(3e-4, 1e-12, 10)
    estimator: str = "grpo"
    loss_weight: str = "rollout"
    temperature: float = within(1.0, 1e-4, 100)
    warm_steps: int = within(800, 0, 1_000_000)
    warm_seed: int = within(0, 0, 2**31)
    retention: float = within(0.8, 0, 1)
    prior_strength: float = within(4.0, 1e-3, 1e9)
    price: float = within(0.0, 0, 1e6)
    token_seconds: float = within(3e-5, 0, 1e6)
    update_seconds: float = within(0.1, 0, 1e6)
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, allowed in (
            ("regime", (*tasks.REGIMES, LANGUAGE)),
            ("preset", PRESETS),
            ("estimator", grpo.ESTIMATORS),
            ("loss_weight", grpo.WEIGHTS),
        ):
            if getattr(self, field) not in allowed:
                raise unknown(field, getattr(self, field), allowed)
        if self.model and self.regime != LANGUAGE:
            raise self.no_model()
        if self.held * self.samples > MOST_HELD:
            raise AllocgymError(
                f"held, samples: at most {MOST_HELD} rollouts of a cell expected, given "
                f"{self.held} x {self.samples}"
            )
        if self.budget % (self.rounds * self.multiple):
            raise AllocgymError(
                f"budget: a multiple of rounds x multiple ({self.rounds * self.multiple}) "
                f"expected, given {self.budget}"
            )
        c = self.multiple
        most, least = self.high // c * c * self.rows, -(-self.low // c) * c * self.rows
        if most < self.budget or least * self.rounds > self.budget:
            raise AllocgymError(
                f"low, high: {self.budget} rollouts over {self.rows} prompts cannot lie between "
                f"{self.low} and {self.high} each, in multiples of {c}"
            )

    def no_model(self) -> AllocgymError:
        """The error for a regime and a model that do not go together."""
        kind = AllocgymError if self.model else FileNeededError
        return kind(
            f"model: the folder or hub name of a Hugging Face model goes with the regime "
            f"{LANGUAGE!r}, given {self.model!r} with {self.regime!r}"
        )

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Checked.altered`: what is asked for no longer follows the problem's rows."""
        asked = [k for k in ("rows", "budget") if k in changes]
        changes = {"fixed": tuple(dict.fromkeys([*self.fixed, *asked])), **changes}
        # A run is called by its regime.
        return {"name": changes["regime"], **changes} if "regime" in changes else changes

    def offering(self, rows: int) -> RealRolloutScenario:
        """The same with so many prompts in an update, and as many rollouts each.

        Raises:
            AllocgymError: another number of prompts was asked for.
        """
        if self.rows == rows:
            return self
        if "rows" in self.fixed:
            raise AllocgymError(f"n_max: {self.rows} rows needed, given {rows}")
        budget = self.budget
        if "budget" not in self.fixed:
            budget = max(self.budget // self.rows, 1) * rows
        return dataclasses.replace(self, rows=rows, budget=budget)

    def digest(self) -> str:
        """Content hash, part of a checkpoint's identity."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k not in NOT_HASHED}
        text = json.dumps(fields, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


SCENARIOS: dict[str, RealRolloutScenario] = {
    name: RealRolloutScenario(name, regime=name) for name in (*tasks.REGIMES, LANGUAGE)
}
ALIASES = {"tiny": "easy", "qwen1.5b-dsr": "easy", "hetero-cost": "mixed-cost"}
"""Scenarios of the simulator whose nearest real run has another name."""
