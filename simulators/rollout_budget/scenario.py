"""Named distributions of rollout-budget episodes: the words. `sampling` draws from them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import Scenario, within
from allocgym.envs.core.untrusted import loads
from allocgym.envs.rollout_budget.records import CATEGORIES, FAMILIES

POOLS = ("beta", "hard-tail", "same", "cells")
SEARCHES = ("best-of-n", "tree")
"""Ways of searching; see `search`."""
MODELS = ("1.5B", "7B")
LOSS_WEIGHTS = ("rollout", "prompt")
LARGEST_POOL = 2**20
"""Prompts in a pool."""
LONGEST = 1e9
"""Tokens of a rollout."""


@functools.cache
def fit(name: str) -> dict[str, Any]:
    """Read a fitted JSON file (``"items"``, ``"tiny"``, ``"cost"``, or a path).

    Raises:
        AllocgymError: there is none, or it is no JSON.
    """
    path = Path(name) if name.endswith(".json") else Path(__file__).parent / "fits" / f"{name}.json"
    try:
        found: dict[str, Any] = loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AllocgymError(f"cells: no fit {name!r} ({error})") from error
    if not isinstance(found, dict):
        raise AllocgymError(f"cells: {name!r} is no fit, a dictionary expected")
    return found


@dataclasses.dataclass(frozen=True)
class RolloutScenario(Scenario):
    """A distribution of episodes.

    Attributes:
        pool: initial success rates: ``"beta"`` (fitted to public trajectories), ``"hard-tail"``
            (half the prompts below 2 %), ``"same"`` (one rate for all) or ``"cells"`` (fitted to
            recorded runs of the tiny real back end).
        families: of tasks, 1 to 8.
        levels: bins of difficulty in each family (with ``granularity="bins"``).
        rows: prompts offered in an update.
        epoch: updates in which every prompt of the pool is offered once.
        budget: rollouts of an update.
        low: least rollouts of an offered prompt.
        high: most rollouts of an offered prompt in an update.
        multiple: counts are multiples of this.
        horizon: updates.
        rounds: periods in an update; more than 1 lets an agent ask again (sequential).
        gain: logits gained over the episode at full signal.
        gain_spread: standard deviation of the log of ``gain`` between episodes.
        own: share of a step that is the family's own.
        noise: v of the law (within prompts).
        between: k of the law (between prompts).
        limit: ability at which learning stops, as a multiple of ``gain``.
        slope_spread: standard deviation of the logarithm of discriminations.
        forget: share of own ability lost in an update without the family.
        need: accuracy of the family before that opens a family half way (0: none).
        cost_spread: ratio of the dearest to the cheapest family's tokens.
        mean_tokens: mean tokens of a rollout.
        model: size whose step times the cost is calibrated to: ``"1.5B"`` or ``"7B"``.
        false_positive: rate at which the verifier accepts a wrong answer.
        false_negative: rate at which it refuses a right one.
        loss_weight: ``"rollout"`` or ``"prompt"``.
        price: accuracy that a mean update's tokens cost.
        max_tokens: longest rollout at the start; longer ones are cut and wrong (0: no limit).
        length_decay: factor on ``max_tokens`` every ``length_every`` updates; the rollouts of an
            update grow as the tokens allow (a budget in tokens).
        length_every: see ``length_decay``.
        three_way: a prompt with exactly one unit is trained on its demonstration, one with none
            is skipped, one with more is trained by rollouts.
        search: ``""`` (rollouts train the model), or rollouts are attempts to solve the prompts of an
            update and the score is the share solved so far: ``"best-of-n"`` or ``"tree"`` (see
            `search`).
        depth: steps of an attempt in a tree search.
        evaluation: held-out rollouts behind a measured accuracy.
        prior_strength: pseudo-rollouts of the belief before any (1e6: prompts are known alike).
        cells: fit behind the pool ``"cells"``: a name, or the path of a JSON file.
        fixed: which of ``rows``, ``budget`` and ``levels`` were asked for: those do not follow the
            problem's rows.
    """

    pool: str = "beta"
    families: int = within(2, 1, FAMILIES)
    levels: int = within(5, 1, 4096)
    rows: int = within(64, 1, 4096)
    epoch: int = within(4, 1, LARGEST_POOL)
    budget: int = within(512, 1, 2**22)
    low: int = within(0, 0, 4096)
    high: int = within(128, 1, 4096)
    multiple: int = within(1, 1, 4096)
    horizon: int = within(60, 1, 100_000)
    rounds: int = within(1, 1, 64)
    gain: float = within(1.3, 1e-6, 1e3)
    gain_spread: float = within(0.15, 0, 2)
    own: float = within(0.2, 0, 1)
    noise: float = within(74.0, 0, 1e6)
    between: float = within(30.0, 0, 1e6)
    limit: float = within(3.0, 1e-6, 1e6)
    slope_spread: float = within(0.3, 0, 2)
    forget: float = within(0.0, 0, 1)
    need: float = within(0.0, 0, 1)
    cost_spread: float = within(1.0, 1e-3, 1e3)
    mean_tokens: float = within(824.0, 1, 1e7)
    model: str = "1.5B"
    false_positive: float = within(0.0, 0, 1)
    false_negative: float = within(0.0, 0, 1)
    loss_weight: str = "rollout"
    price: float = within(0.0, 0, 1e6)
    max_tokens: float = within(0.0, 0, LONGEST)
    length_decay: float = within(1.0, 1e-3, 1e3)
    length_every: int = within(10, 1, 100_000)
    three_way: bool = False
    search: str = ""
    depth: int = within(4, 1, 64)
    evaluation: int = within(2000, 1, 2**40)
    prior_strength: float = within(1.25, 1e-3, 1e9)
    cells: str = "tiny"
    fixed: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, allowed in (
            ("pool", POOLS),
            ("search", ("", *SEARCHES)),
            ("loss_weight", LOSS_WEIGHTS),
            ("model", MODELS),
        ):
            if getattr(self, field) not in allowed:
                raise unknown(field, getattr(self, field), allowed)
        if self.search and self.three_way:
            raise AllocgymError("search, three_way: one of the two expected, given both")
        if self.rows * self.epoch * (self.depth if self.search == "tree" else 1) > LARGEST_POOL:
            raise AllocgymError(
                f"rows, epoch: at most {LARGEST_POOL} prompts in all expected (a tree search: steps "
                f"of them), given {self.rows} x {self.epoch}"
            )
        if self.budget % (self.rounds * self.multiple):
            raise AllocgymError(
                f"budget: a multiple of rounds x multiple ({self.rounds * self.multiple}) "
                f"expected, given {self.budget}"
            )
        if self.most < self.budget or self.least * self.rounds > self.budget:
            raise AllocgymError(
                f"low, high: {self.budget} rollouts over {self.rows} prompts cannot lie between "
                f"{self.low} and {self.high} each, in multiples of {self.multiple}"
            )
        self._check_cells()

    def _check_cells(self) -> None:
        if self.pool != "cells":
            return
        cells = fit(self.cells)
        missing = [k for k in ("base", "slope", "families", "within") if k not in cells]
        if missing or not len(cells["base"]) == len(cells["slope"]) == len(cells["families"]):
            raise AllocgymError(f"cells: {self.cells!r} is no fit of recorded runs")
        if len(cells["base"]) > CATEGORIES or max(cells["families"]) >= self.families:
            raise AllocgymError(
                f"families: at least {max(cells['families']) + 1} (and at most {CATEGORIES} cells) "
                f"expected with cells {self.cells!r}, given {self.families}"
            )

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Checked.altered`: what is asked for no longer follows the problem's rows."""
        asked = [k for k in ("rows", "budget", "levels") if k in changes]
        return {"fixed": tuple(dict.fromkeys([*self.fixed, *asked])), **changes}

    @property
    def most(self) -> int:
        """Most rollouts of an update that the bounds of a prompt allow."""
        return self.high // self.multiple * self.multiple * self.rows

    @property
    def least(self) -> int:
        """Least rollouts of a round that the bounds of a prompt allow."""
        return -(-self.low // self.multiple) * self.multiple * self.rows

    def stretched(self, factor: float) -> Self:
        """The same dynamics for more updates: the step and the limit stay what they were."""
        return dataclasses.replace(
            self,
            horizon=round(self.horizon * factor),
            gain=self.gain * factor,
            limit=self.limit / factor,
        )

    def longest(self, step: int) -> float:
        """Longest rollout, in tokens, of update ``step`` (infinity: no limit)."""
        if self.max_tokens <= 0:
            return float("inf")
        try:
            allowed = self.max_tokens * self.length_decay ** (step // self.length_every)
        except OverflowError:
            allowed = LONGEST
        return min(max(allowed, 1.0), LONGEST)


FULL = 0.53
"""Share of a full step that a uniform split of groups of 8 makes at the start (see `law`)."""
_RUNS = fit("tiny")
_FITTED: dict[str, Any] = {"noise": _RUNS["noise"], "between": _RUNS["between"]}
_OWN = _RUNS["own"]
_REACH = _RUNS["eta"] * _RUNS["steps"]

SCENARIOS: dict[str, RolloutScenario] = {
    s.name: s
    for s in (
        RolloutScenario("qwen1.5b-dsr", gain=fit("items")["gain"] / FULL, **_FITTED),
        RolloutScenario("hard-tail", pool="hard-tail", families=4, own=_OWN, gain=4.0, **_FITTED),
        RolloutScenario("hetero-cost", families=4, cost_spread=10.0, own=_OWN, gain=4.0, **_FITTED),
        RolloutScenario(
            "prereq", pool="hard-tail", families=4, need=0.45, own=_OWN, gain=5.0, **_FITTED
        ),
        RolloutScenario(
            "tiny",
            pool="cells",
            families=5,
            own=_OWN,
            mean_tokens=8.0,
            gain=_REACH,
            prior_strength=4.0,
            limit=_RUNS["limit"] / _REACH,
            **_FITTED,
        ),
        RolloutScenario(
            "homogeneous",
            pool="same",
            families=1,
            levels=10,
            rows=32,
            budget=1024,
            gain=2.0,
            slope_spread=0.0,
            own=0.0,
            prior_strength=1e6,
            **_FITTED,
        ),
    )
}
"""The presets. Noise is that of the recorded runs everywhere, and so is ``own`` where families differ;
`qwen1.5b-dsr` keeps the fifth measured on them at equal seeds. The gains of `hard-tail`,
`hetero-cost` and `prereq` (and the gate of `prereq`) are assumed: no public run was found."""
