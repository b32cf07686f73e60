"""Radio slicing on the command line."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from allocgym.benchmarks.core.front import Front
from allocgym.benchmarks.prb_slicing.training import TRAINERS
from allocgym.envs.core.registry import Suite

_HOME = "allocgym.benchmarks.prb_slicing"
SUITES = {
    "tractor": Suite(
        f"{_HOME}.tractor:suite", "TRACTOR's nine mixes and score (about 30 min on one core)", 30, 6
    ),
    "sla": Suite(
        f"{_HOME}.sla:suite",
        "constraints at loads 1, 3, 8 on held-out traces (about 60 min)",
        30,
        4,
    ),
    "live": Suite(
        f"{_HOME}.live:suite", "frozen agents on the Linux data plane (about 50 min)", 5, 1
    ),
    "fidelity": Suite(f"{_HOME}.fidelity:suite", "tables, recorded KPIs, SimPy (about 3 min)"),
    "speed": Suite(f"{_HOME}.speed:suite", "steps per second, live control step (about 2 min)"),
}


class SlicingFront(Front):
    """See `Front`."""

    problem: ClassVar[str] = "prb-slicing"
    package: ClassVar[str] = "prb_slicing"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/PRBSlicing-v0",)
    scenario: ClassVar[str] = "generated"
    fallback: ClassVar[str] = "demand-proportional"
    trainers = TRAINERS
    suites = SUITES

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`."""
        from allocgym.benchmarks.core.compare import paired
        from allocgym.benchmarks.core.suite import show
        from allocgym.benchmarks.prb_slicing.runs import play

        chosen = list(dict.fromkeys(["equal", "demand-proportional", *agents]))
        found = {a: play(a, scenario, seeds, **overrides) for a in chosen}
        rows = []
        for a, r in sorted(found.items(), key=lambda item: -item[1]["sla"].mean()):
            d = paired(-r["sla"], -found["equal"]["sla"])
            rows.append(
                [
                    a,
                    float(r["sla"].mean()),
                    f"{-d.mean:+.4f} [{-d.high:+.4f}, {-d.low:+.4f}]",
                    float(r["tractor"].mean()),
                    float(r["qos"].mean()),
                    float(r["late10"].mean()),
                    float(r["goodput"].mean()),
                ]
            )
        columns = [
            "agent",
            "sla",
            "minus equal, 95 %",
            "tractor",
            "qos",
            "URLLC late",
            "eMBB Mbit/s",
        ]
        show(f"{scenario} ({seeds} paired seeds)", columns, rows)

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        seconds = float(outcome.instance.period[0]) / 1000
        rate = outcome.served[0].sum(1) * 8e-6 / seconds
        parts = [
            f"{name} {int(units)} groups {mbit:.2f} Mbit/s {delay:.1f} ms"
            for name, units, mbit, delay in zip(
                spec.claimants, outcome.units[0], rate, outcome.delay[0], strict=False
            )
        ]
        late = float(outcome.late[0].sum() / np.maximum(outcome.packets[0].sum(), 1))
        resumed = "  resumed after a gap" if outcome.failure[0] else ""
        return "  ".join(parts) + f"  late {100 * late:.1f} %{resumed}"


FRONT = SlicingFront()
