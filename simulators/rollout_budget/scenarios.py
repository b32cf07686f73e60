"""Named scenarios of rollout budgets, and how their episodes are drawn from seeds."""

from __future__ import annotations

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.rollout_budget.records import CATEGORIES, FAMILIES, RolloutInstance
from allocgym.simulators.rollout_budget import search
from allocgym.simulators.rollout_budget.costs import CostModel
from allocgym.simulators.rollout_budget.law import Law

POOLS = ("beta", "hard-tail", "same", "cells")


@functools.cache
def fit(name: str) -> dict[str, Any]:
    """Read a fitted JSON file (``"items"``, ``"tiny"``, ``"cost"``, or a path)."""
    if name.endswith(".json"):
        found: dict[str, Any] = json.loads(Path(name).read_text())
        return found
    text = (Path(__file__).parent / "fits" / f"{name}.json").read_text()
    data: dict[str, Any] = json.loads(text)
    return data


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A distribution of episodes.

    Attributes:
        name: of the preset.
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
    """

    name: str
    pool: str = "beta"
    families: int = 2
    levels: int = 5
    rows: int = 64
    epoch: int = 4
    budget: int = 512
    low: int = 0
    high: int = 128
    multiple: int = 1
    horizon: int = 60
    rounds: int = 1
    gain: float = 1.3
    gain_spread: float = 0.15
    own: float = 0.2
    noise: float = 74.0
    between: float = 30.0
    limit: float = 3.0
    slope_spread: float = 0.3
    forget: float = 0.0
    need: float = 0.0
    cost_spread: float = 1.0
    mean_tokens: float = 824.0
    model: str = "1.5B"
    false_positive: float = 0.0
    false_negative: float = 0.0
    loss_weight: str = "rollout"
    price: float = 0.0
    max_tokens: float = 0.0
    length_decay: float = 1.0
    length_every: int = 10
    three_way: bool = False
    search: str = ""
    depth: int = 4
    evaluation: int = 2000
    prior_strength: float = 1.25
    cells: str = "tiny"

    def __post_init__(self) -> None:
        if self.pool not in POOLS:
            raise unknown("pool", self.pool, POOLS)
        if self.search not in ("", *search.KINDS):
            raise unknown("search", self.search, ("", *search.KINDS))
        if self.search and self.three_way:
            raise AllocgymError("search, three_way: one of the two expected, given both")
        if self.loss_weight not in ("rollout", "prompt"):
            raise unknown("loss_weight", self.loss_weight, ("rollout", "prompt"))
        if self.model not in ("1.5B", "7B"):
            raise unknown("model", self.model, ("1.5B", "7B"))
        if not 1 <= self.families <= FAMILIES:
            raise AllocgymError(f"families: 1 to {FAMILIES} expected, given {self.families}")
        whole = ("levels", "rows", "epoch", "budget", "high", "multiple", "horizon", "rounds")
        for name in (*whole, "depth", "length_every", "evaluation"):
            if getattr(self, name) < 1:
                raise AllocgymError(
                    f"{name}: an integer >= 1 expected, given {getattr(self, name)}"
                )
        if self.budget % (self.rounds * self.multiple):
            raise AllocgymError(
                f"budget: a multiple of rounds x multiple ({self.rounds * self.multiple}) "
                f"expected, given {self.budget}"
            )
        if self.high * self.rows < self.budget or self.low * self.rows * self.rounds > self.budget:
            raise AllocgymError(
                f"low, high: {self.budget} rollouts over {self.rows} prompts cannot lie between "
                f"{self.low} and {self.high} each"
            )
        for name in ("own", "false_positive", "false_negative", "forget", "need"):
            if not 0 <= getattr(self, name) <= 1:
                raise AllocgymError(f"{name}: 0 to 1 expected, given {getattr(self, name)}")
        for name in ("gain", "limit", "mean_tokens", "cost_spread", "length_decay"):
            if getattr(self, name) <= 0:
                raise AllocgymError(
                    f"{name}: a positive number expected, given {getattr(self, name)}"
                )

    def cost_model(self) -> CostModel:
        """Prices calibrated to the model's published step times."""
        prices = fit("cost")[self.model]
        return CostModel(
            lanes=int(fit("cost")["lanes"]),
            spread=float(fit("cost")["spread"]),
            tokens_per_second=prices["tokens_per_second"],
            token_seconds=prices["token_seconds"],
            train_seconds=prices["train_seconds"],
            overhead_seconds=prices["overhead_seconds"],
        )


FULL = 0.53
"""Share of a full step that a uniform split of groups of 8 makes at the start (see `law`)."""
_RUNS = fit("tiny")
_FITTED: dict[str, Any] = {"noise": _RUNS["noise"], "between": _RUNS["between"]}
_OWN = _RUNS["own"]
_REACH = _RUNS["eta"] * _RUNS["steps"]

SCENARIOS = {
    s.name: s
    for s in (
        Scenario("qwen1.5b-dsr", gain=fit("items")["gain"] / FULL, **_FITTED),
        Scenario("hard-tail", pool="hard-tail", families=4, own=_OWN, gain=4.0, **_FITTED),
        Scenario("hetero-cost", families=4, cost_spread=10.0, own=_OWN, gain=4.0, **_FITTED),
        Scenario("prereq", pool="hard-tail", families=4, need=0.45, own=_OWN, gain=5.0, **_FITTED),
        Scenario(
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
        Scenario(
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


def make(scenario: str | Scenario, **overrides: Any) -> Scenario:
    """Look a scenario up and override fields.

    Raises:
        AllocgymError: no such scenario or field, or a value out of range.
    """
    if isinstance(scenario, str):
        if scenario not in SCENARIOS:
            raise unknown("scenario", scenario, SCENARIOS)
        scenario = SCENARIOS[scenario]
    return replaced(scenario, overrides, f"scenario {scenario.name!r}")


@dataclasses.dataclass
class Sampled:
    """Episodes drawn from a scenario.

    Attributes:
        instance: what everybody knows.
        law: true parameters.
        length: ``(items, batch)`` mean tokens of a rollout.
        prompts: ``(items, batch)`` prompts in each item (bins).
    """

    instance: RolloutInstance
    law: Law
    length: np.ndarray
    prompts: np.ndarray


@functools.cache
def _quantiles(a: float, b: float) -> np.ndarray:
    table: np.ndarray = special.betaincinv(a, b, (np.arange(512) + 0.5) / 512)
    return table


def initial_rates(pool: str, u: np.ndarray) -> np.ndarray:
    """Success rates at the start at quantiles ``u`` of a pool (any shape)."""
    if pool == "same":
        return np.full_like(u, 0.4)
    if pool == "hard-tail":
        # Half the prompts log-uniform in 0.2 % .. 2 %, half the fitted population above 10 %.
        hard = 0.002 * 10 ** (2 * np.minimum(u, 0.5))
        soft = _quantiles(1.0, 1.2)
        grid = (np.arange(512) + 0.5) / 512
        easy = 0.1 + 0.85 * np.interp(np.maximum(2 * u - 1, 0), grid, soft)
        return np.where(u < 0.5, hard, easy)
    a, b = fit("items")["initial beta"]
    grid = (np.arange(512) + 0.5) / 512
    return np.clip(np.interp(u, grid, _quantiles(a, b)), 5e-4, 1 - 5e-4)


def sample(
    scenario: Scenario, seeds: np.ndarray, items: int, bins: bool, dtype: type = np.float64
) -> Sampled:
    """Draw episodes; each is a function of its own seed.

    Args:
        scenario: the distribution.
        seeds: ``(batch,)``.
        items: claimants in the pool (bins, padding included, or prompts).
        bins: claimants are bins of alike prompts.
        dtype: of the law, the priors and the counts.
    """
    batch = len(seeds)
    count = scenario.families
    cells = bins * count * scenario.levels
    used = cells if bins else items
    index = np.arange(items)
    if bins:
        family = np.minimum(index // scenario.levels, count - 1)
        where = (index % scenario.levels)[:, None]
        u = randomness.uniform(randomness.stream(seeds, "difficulty", items), 0)
        quantile = (where + u) / scenario.levels
    else:
        family = index % count
        # Stratified: one prompt in each of items / families equal parts, dealt at random.
        u = randomness.uniform(randomness.stream(seeds, "difficulty", items), 0)
        rank = np.argsort(
            np.argsort(randomness.uniform(randomness.stream(seeds, "rank", items), 0), 0), 0
        )
        quantile = (rank + u) / items
    category = np.minimum(family, CATEGORIES - 1)
    slope = np.exp(
        scenario.slope_spread * randomness.normal(randomness.stream(seeds, "slope", items), 0)
    )
    if scenario.pool == "cells":
        slope, logit, family, category = _recorded_cells(scenario.cells, seeds, items)
    else:
        rate = initial_rates(scenario.pool, quantile)
        if scenario.need > 0 and not bins:
            # Later families of a chain start harder.
            rate = rate * np.power(0.75, family)[:, None]
        logit = np.log(rate / (1 - rate))
    scale = np.exp(scenario.gain_spread * randomness.normal(randomness.stream(seeds, "gain"), 0))[0]
    gain = scenario.gain * scale
    ratio = np.power(scenario.cost_spread, np.linspace(-0.5, 0.5, count))
    turn = np.argsort(randomness.uniform(randomness.stream(seeds, "cost", count), 0), 0)
    by_family = ratio[turn] / ratio.mean()
    length = scenario.mean_tokens * np.take_along_axis(
        by_family, np.broadcast_to(family[:, None], (items, batch)), 0
    )
    present = (index < used)[:, None]
    prompts = np.zeros((items, batch), np.int64)
    if bins:
        share = np.full(used, scenario.rows // used)
        share[: scenario.rows % used] += 1
        prompts[:used] = share[:, None]
    else:
        prompts[:] = 1
    full = np.ones(batch)
    weight = np.broadcast_to(present / used, (items, batch)).copy()
    families = np.broadcast_to(family[:, None], (items, batch)).copy()
    law = Law(
        slope=slope,
        difficulty=-logit / slope,
        family=families,
        weight=weight,
        families=count,
        eta=gain / scenario.horizon,
        own=full * scenario.own,
        noise=full * scenario.noise,
        between=full * scenario.between,
        limit=scenario.limit * gain,
        forget=full * scenario.forget,
        need=full * scenario.need,
        demonstration=full * 0.25,
        by_prompt=scenario.loss_weight == "prompt",
    )
    whole = np.ones(batch, np.int64)
    m = int(prompts.max()) if bins else 1
    instance = RolloutInstance(
        family=families.T,
        families=whole * count,
        category=np.broadcast_to(category[:, None], (items, batch)).T,
        pooled=full * (not bins),
        prior_a=np.full((items, batch), 0.4 * scenario.prior_strength).T,
        prior_b=np.full((items, batch), 0.6 * scenario.prior_strength).T,
        retention=full * (0.8 if not bins else 0.8 / max(m, 1) ** 0.5),
        budget=whole * (scenario.budget // scenario.rounds),
        low=whole * scenario.low,
        high=whole * scenario.high,
        multiple=whole * scenario.multiple,
        horizon=whole * scenario.horizon,
        rounds=whole * scenario.rounds,
        group=full * scenario.budget / scenario.rows,
        price=full * scenario.price,
        nominal=full * scenario.budget * scenario.mean_tokens,
    )
    if dtype is not np.float64:
        instance = instance.map(lambda a: a.astype(dtype) if a.dtype.kind == "f" else a)
        law = law.cast(dtype)
    return Sampled(instance, law, length.astype(dtype), prompts.astype(dtype))


def _recorded_cells(
    name: str, seeds: np.ndarray, items: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Slopes, initial logits, families and cells of prompts like those of the tiny real back end."""
    data = fit(name)
    cells = len(data["base"])
    cell = np.arange(items) % cells
    spread = data["within"] * randomness.normal(randomness.stream(seeds, "within", items), 0)
    base = np.array(data["base"])[cell][:, None] + spread
    slope = np.maximum(np.array(data["slope"])[cell][:, None], 0.05) + 0 * spread
    return slope, base, np.array(data["families"])[cell], cell
