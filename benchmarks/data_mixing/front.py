"""Data mixing on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from allocgym.benchmarks.core.front import Front
from allocgym.benchmarks.core.main import Suite

_HOME = "allocgym.benchmarks.data_mixing"
SUITES = {
    "simulator": Suite(
        f"{_HOME}.simulator:suite",
        "every agent on every scenario (about 25 min on two cores)",
        100,
        30,
    ),
    "fidelity": Suite(
        f"{_HOME}.fidelity:suite", "published figures, RegMix, held-out real runs (about 2 min)"
    ),
    "speed": Suite(f"{_HOME}.speed:suite", "steps per second, one core (about 2 min)"),
    "recipes": Suite(
        f"{_HOME}.recipes:suite", "how to train for real runs (about 20 min on two cores)", 4, 2
    ),
    "real": Suite(
        f"{_HOME}.real:suite", "paired real training runs (about 90 min on two cores)", 10, 2
    ),
}


class MixingFront(Front):
    """See `Front`."""

    problem: ClassVar[str] = "data-mixing"
    package: ClassVar[str] = "data_mixing"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/DataMixing-v0",)
    scenario: ClassVar[str] = "continual-pretraining"
    trainers: ClassVar[dict[str, int]] = {
        "gradient": 300,
        "ppo": 20,
        "cma": 40,
        "rllib-ppo": 80,
        "rllib-appo": 80,
    }
    suites = SUITES

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`."""
        from allocgym.benchmarks.data_mixing.simulator import compare_agents, show_comparison

        asked = ["uniform", *agents, "oracle-static", "oracle-schedule"]
        chosen = list(dict.fromkeys(asked))
        show_comparison(scenario, compare_agents(scenario, chosen, seeds, overrides))

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        present = outcome.ready[0]
        split = zip(spec.claimants, keyed.decision.fractions[0], present, strict=False)
        mixture = "  ".join(f"{n} {100 * s:.0f}%" for n, s, there in split if there)
        losses = " ".join(f"{v:.3f}" for v in outcome.losses[0][present])
        return f"{mixture}  losses {losses}"

    def calibrate(self, out: Path, processes: int, seeds: int) -> None:
        """See `Front.calibrate`."""
        from allocgym.benchmarks.data_mixing.calibrate import calibrate

        calibrate(out, processes, seeds)


FRONT = MixingFront()
