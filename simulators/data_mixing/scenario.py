"""Named distributions of data-mixing instances: the words. `sampling` draws from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, check_kind, within
from allocgym.envs.data_mixing.schedules import FLAT, SCHEDULES

OBJECTIVES = ("mean", "worst", "target", "preference")
FAMILIES = ("regmix", "continual", "skills", "table")
"""Where a learning law comes from; see `families`."""
UNITS_A_DOMAIN = 32
"""Units in a period of a fitted table, at least, for each domain: rounding stays small beside shares."""


@dataclasses.dataclass(frozen=True)
class MixingScenario(Scenario):
    """A distribution of instances. Pairs are ranges to draw from; equal ends fix the value.

    Attributes:
        family: where the learning law comes from: ``"regmix"`` (fitted to the public RegMix runs),
            ``"continual"`` (fitted to recorded runs of the real back end), ``"skills"``, or ``"table"``
            (fitted to a table of runs: ``fit``).
        domains: how many, between 2 and 128.
        horizon: periods in an episode.
        budget: units (sequences) in a period.
        steps: optimiser steps of a whole episode at full learning rate.
        schedules: learning-rate schedules to draw from.
        forgetting: False switches every path dependence off: the control.
        objective: ``"mean"``, ``"worst"``, ``"target"`` (the last domain against the sources) or
            ``"preference"`` (random weights, shown to the agent).
        target_weight: weight of the target domain where the objective is ``"target"``.
        epsilon: allowed rise of the sources' mean loss, or None.
        penalty: objective points for each unit of loss beyond ``epsilon``.
        small: how many domains are small and repeat.
        small_share: unique data of a small domain, as a fraction of the episode's budget.
        epoch_cap: epochs a small domain may be repeated.
        noise: standard deviation of a measured loss.
        floor: share every domain gets at least, of an equal share.
        hidden: True hides the horizon from the agent.
        budget_fraction: scales the whole episode's budget: what is left after paying for a sweep.
        jitter: how far beyond the fitted parameters instances are drawn (1 is the fits' own hull).
        fit: file that ``allocgym calibrate data-mixing --ratios ...`` wrote, or "". Giving one changes
            whatever scenario it is given to: see `altered`.
    """

    family: str = "regmix"
    domains: tuple[int, int] = within((4, 8), 2, 128)
    horizon: int = within(10, 1, 10000)
    budget: int = within(320, 32, 2**31)
    steps: tuple[float, float] = within((100.0, 400.0), 1.0, 1e7)
    schedules: tuple[str, ...] = SCHEDULES
    forgetting: bool = True
    objective: str = "mean"
    target_weight: tuple[float, float] = within((0.4, 0.8), 0.0, 1.0)
    epsilon: tuple[float, float] | None = within(None, 0.0, 100.0)
    penalty: float = within(4.0, 0, 1e6)
    small: tuple[int, int] = within((0, 0), 0, 128)
    small_share: tuple[float, float] = within((0.01, 0.1), 1e-6, 1.0)
    epoch_cap: float = within(16.0, 1e-3, 1e6)
    noise: tuple[float, float] = within((0.002, 0.01), 0.0, 1.0)
    floor: float = within(0.05, 0, 1)
    hidden: bool = False
    budget_fraction: float = within(1.0, 1e-3, 1)
    jitter: float = within(1.3, 1, 8)
    fit: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective not in OBJECTIVES:
            raise unknown("objective", self.objective, OBJECTIVES)
        if self.family not in FAMILIES:
            raise unknown("family", self.family, FAMILIES)
        if (self.family == "table") != bool(self.fit):
            raise AllocgymError(
                f"fit: the file of a fit expected with family 'table' and only there, given "
                f"{self.fit!r} with family {self.family!r}"
            )
        if self.family == "table" and self.schedules != (FLAT,):
            raise AllocgymError(
                f"schedules: ({FLAT!r},) expected with a fit, which knows no learning rates, given "
                f"{self.schedules}"
            )
        for schedule in self.schedules:
            if schedule not in (*SCHEDULES, FLAT):
                raise unknown("schedule", schedule, (*SCHEDULES, FLAT))
        if not self.schedules:
            raise AllocgymError("schedules: at least one expected, given ()")
        supply = self.domains[0] * self.small_share[0] * self.epoch_cap
        if self.small[1] >= self.domains[0] and supply < 1:
            raise AllocgymError(
                f"small, small_share, epoch_cap: where all {self.domains[0]} domains are small they "
                f"may supply {supply:.2g} of an episode's budget; at least 1 expected"
            )

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Checked.altered`.

        With a fit, the domains are those of its table, the objective is the equal mean of its families,
        the learning rate is flat, and no data is scarce.
        """
        if not changes.get("fit"):
            return changes
        check_kind("fit", "str", changes["fit"])
        # Not at the top: whoever lists scenarios need not load what reads fits.
        from allocgym.simulators.data_mixing import ensemble

        n = len(ensemble.read(changes["fit"]).domains)
        told = {
            "name": "table",
            "family": "table",
            "domains": (n, n),
            "schedules": (FLAT,),
            "objective": "mean",
            "epsilon": None,
            "small": (0, 0),
            "floor": 0.0,
            "forgetting": True,
            "budget": max(self.budget, UNITS_A_DOMAIN * n),
        }
        return {**told, **changes}


SCENARIOS: dict[str, MixingScenario] = {
    s.name: s
    for s in (
        MixingScenario("scratch", "regmix", (4, 8)),
        MixingScenario("continual-pretraining", "continual", (2, 5), objective="target"),
        MixingScenario("low-resource", "regmix", (4, 8), small=(1, 3)),
        MixingScenario("skills", "skills", (3, 6)),
        MixingScenario("static-control", forgetting=False, schedules=("constant",)),
    )
}
