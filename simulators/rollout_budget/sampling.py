"""From seeds to episodes of rollout budgets: what agents know, what they do not, and where it begins.

Every parameter is a draw keyed by (seed, purpose, item), so an episode depends on its seed alone.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from scipy import special

from allocgym.envs.core import randomness
from allocgym.envs.core.record import Columns
from allocgym.envs.rollout_budget.records import CATEGORIES, RolloutInstance
from allocgym.simulators.rollout_budget import law
from allocgym.simulators.rollout_budget.law import Law
from allocgym.simulators.rollout_budget.scenario import RolloutScenario, fit


@dataclasses.dataclass(eq=False)
class Streams(Columns):
    """What everything random is drawn from; see `randomness`.

    Attributes:
        rollout: ``(items, batch)`` right or wrong.
        length: ``(items, batch)`` tokens of a row.
        order: ``(items, batch)`` who is offered when.
        evaluation: measurement errors.
        lane: slowness of the inference engines.
        bins: successes and tokens of bins.
        failure: ``(1, batch)`` whether an engine fails, and which.
        tree: ``(items x depth, batch)`` steps of tree searches (none in other scenarios).
    """

    rollout: np.ndarray
    length: np.ndarray
    order: np.ndarray
    evaluation: np.ndarray
    lane: np.ndarray
    bins: np.ndarray
    failure: np.ndarray
    tree: np.ndarray


@dataclasses.dataclass(eq=False)
class RolloutState(Columns):
    """All there is of a batch of running episodes.

    Attributes:
        instance: what agents know.
        law: what they do not.
        length: ``(items, batch)`` mean tokens of a rollout.
        prompts: ``(items, batch)`` prompts in each item (bins).
        streams: of all draws.
        shared: ``(batch,)`` ability all families share, logits.
        own: ``(families, batch)`` abilities of the families' own.
        rates: ``(items, batch)`` success rates now.
        accuracy: ``(batch,)`` true held-out accuracy now.
        by_family: ``(families, batch)`` the same by family.
        found: ``(2, batch)`` prompts solved and prompts offered so far (search).
        step: ``(batch,)`` int64 updates done.
        round: ``(batch,)`` int64 rounds done of the coming update.
        ids: ``(n, batch)`` items offered for the coming round.
        last: ``(n, batch)`` items the counts below belong to.
        tried, right, mixed, tokens: ``(n, batch)`` sums over the rounds of that update so far.
        ratios: ``(2, batch)`` both gradient ratios of the last update.
        sums: ``(3, batch)`` tokens, rollouts and seconds so far.
        seconds: ``(batch,)`` of the last round.
        spent: ``(batch,)`` int64 rollouts of the last round.
        failure: ``(batch,)`` int64 failures of the last round.
    """

    instance: RolloutInstance
    law: Law
    length: np.ndarray
    prompts: np.ndarray
    streams: Streams
    shared: np.ndarray
    own: np.ndarray
    rates: np.ndarray
    accuracy: np.ndarray
    by_family: np.ndarray
    found: np.ndarray
    step: np.ndarray
    round: np.ndarray
    ids: np.ndarray
    last: np.ndarray
    tried: np.ndarray
    right: np.ndarray
    mixed: np.ndarray
    tokens: np.ndarray
    ratios: np.ndarray
    sums: np.ndarray
    seconds: np.ndarray
    spent: np.ndarray
    failure: np.ndarray


@dataclasses.dataclass(frozen=True)
class Layout:
    """How episodes are laid out in arrays.

    Attributes:
        n: rows offered in a period.
        bins: rows are bins of alike prompts; else prompts.
        lanes: inference engines.
        dtype: of the law, the beliefs and the counts.
    """

    n: int
    bins: bool
    lanes: int = 8
    dtype: type = np.float64


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


def sample(scenario: RolloutScenario, seeds: np.ndarray, layout: Layout) -> RolloutState:
    """Draw one episode for each seed, in the state in which it begins.

    Args:
        scenario: the distribution; without bins, it offers ``layout.n`` prompts an update.
        seeds: ``(batch,)``.
        layout: of the arrays.
    """
    n, bins, real = layout.n, layout.bins, layout.dtype
    items = n if bins else n * scenario.epoch
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

    def narrow(values: np.ndarray) -> np.ndarray:
        return values.astype(real) if values.dtype.kind == "f" else values

    weight = np.broadcast_to(present / used, (items, batch)).copy()
    families = np.broadcast_to(family[:, None], (items, batch)).copy()
    true = Law(
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
    if real is not np.float64:
        instance, true = instance.map(narrow), true.map(narrow)
    streams = _streams(scenario, seeds, layout, items)
    zero: np.ndarray = np.zeros((n, batch), real)
    none: np.ndarray = np.zeros(batch, real)
    own: np.ndarray = np.zeros((count, batch), real)
    rates = law.success(true, none + own)
    accuracy, by_family = law.accuracy(true, rates)
    nothing = np.zeros(batch, np.int64)
    ids = offered(streams, nothing, n, scenario.epoch, bins)
    return RolloutState(
        instance=instance,
        law=true,
        length=length.astype(real),
        prompts=prompts.astype(real),
        streams=streams,
        shared=none,
        own=own,
        rates=rates,
        accuracy=accuracy,
        by_family=by_family,
        found=np.zeros((2, batch), real),
        step=nothing,
        round=nothing,
        ids=ids,
        last=ids,
        tried=zero,
        right=zero,
        mixed=zero,
        tokens=zero,
        ratios=np.zeros((2, batch), real),
        sums=np.zeros((3, batch)),
        seconds=none,
        spent=nothing,
        failure=nothing,
    )


def _streams(scenario: RolloutScenario, seeds: np.ndarray, layout: Layout, items: int) -> Streams:
    steps = items * scenario.depth if scenario.search == "tree" else 0
    return Streams(
        rollout=randomness.stream(seeds, "rollout", items),
        length=randomness.stream(seeds, "length", items),
        order=randomness.stream(seeds, "order", items),
        evaluation=randomness.lane_stream(seeds, "evaluation", scenario.families + 1),
        lane=randomness.lane_stream(seeds, "lane", layout.lanes),
        bins=randomness.lane_stream(seeds, "bins", 2 * layout.n),
        failure=randomness.stream(seeds, "failure"),
        tree=randomness.stream(seeds, "tree", steps),
    )


def offered(streams: Streams, step: np.ndarray, n: int, epoch: int, bins: bool) -> np.ndarray:
    """``(n, batch)`` items of update ``step``: bins in order; prompts once an epoch, order by seed."""
    rows = np.arange(n)[:, None]
    if bins:
        return np.ascontiguousarray(np.broadcast_to(rows, (n, len(step))))
    keys = randomness.uniform(streams.order, step // epoch)
    ranked = np.argsort(keys, 0, kind="stable")
    return np.take_along_axis(ranked, (step % epoch) * n + rows, 0)


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
