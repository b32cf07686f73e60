"""The rollout simulator as a back end: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy import special

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import columns, total
from allocgym.envs.core.contracts import Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import FAMILIES, RolloutOutcome
from allocgym.simulators.core.simulator import Simulator, check_engine
from allocgym.simulators.rollout_budget import costs, groups, law, search
from allocgym.simulators.rollout_budget.sampling import Layout, RolloutState, offered, sample
from allocgym.simulators.rollout_budget.scenario import SCENARIOS, RolloutScenario

GRANULARITIES = ("bins", "prompts")
MOST_ITEMS = 2**25
"""Items of all environments of a batch: some gigabytes."""


class RolloutSimulator(Simulator[RolloutOutcome, Shares, RolloutState]):
    """Learning by the fitted law, cost by SimPy or its batched twin.

    Args:
        problem: `RolloutBudget`; ``problem.n_max`` rows. Where rows are prompts, so many are offered
            and the budget follows, unless the scenario was asked for others.
        scenario: to draw episodes from.
        num_envs: environments in the batch.
        engine: ``"simpy"`` plays each round's cost event by event; ``"twin"`` computes the same
            seconds by recursion for the whole batch. Learning is the same code in both.
        granularity: ``"bins"`` (families x levels of difficulty, each several alike prompts; groups
            are sampled in the mean) or ``"prompts"`` (every rollout is drawn; rollout j of prompt i
            in update t is the same under every policy). By default what the problem's mode needs.
        dtype: of the law and the seconds: ``"float64"`` or ``"float32"`` (twin only).
        cost: prices, or fields of `costs.CostModel` by name (default: calibrated to the model).
    """

    scenarios: ClassVar[Mapping[str, RolloutScenario]] = SCENARIOS

    def __init__(
        self,
        problem: RolloutBudget,
        scenario: RolloutScenario,
        num_envs: int = 1,
        engine: str = "twin",
        granularity: str | None = None,
        dtype: str = "float64",
        cost: costs.CostModel | Mapping[str, Any] | None = None,
    ) -> None:
        check_engine(engine)
        if dtype not in ("float64", "float32") or (engine == "simpy" and dtype != "float64"):
            raise AllocgymError(f"dtype: 'float64', or with 'twin' 'float32'; given {dtype!r}")
        granularity = granularity or ("bins" if problem.mode == "bins" else "prompts")
        if granularity not in GRANULARITIES:
            raise unknown("granularity", granularity, GRANULARITIES)
        if not isinstance(cost, (costs.CostModel, Mapping, type(None))):
            raise AllocgymError(f"cost: a CostModel, or its fields by name, given {cost!r}")
        self.bins = granularity == "bins"
        made = (in_bins if self.bins else in_prompts)(scenario, problem.n_max)
        items = problem.n_max * (1 if self.bins else made.epoch)
        if items * num_envs > MOST_ITEMS:
            raise AllocgymError(
                f"num_envs: at most {MOST_ITEMS // items} with {items} items each, given {num_envs}"
            )
        self.scenario = made
        self.dtype = np.dtype(dtype).type
        self.cost = costs.calibrated(made.model).given(cost)
        self._duration = costs.twin_seconds if engine == "twin" else costs.simpy_seconds
        self._layout = Layout(problem.n_max, self.bins, self.cost.lanes, self.dtype)
        kind = "bin" if self.bins else "row"
        spec = Spec(
            problem=problem.id,
            scenario=made.name,
            backend=engine,
            claimants=tuple(f"{kind}-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="rollout",
            horizon=made.horizon * made.rounds,
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={
                "scenario": dataclasses.asdict(made),
                "granularity": granularity,
                "dtype": dtype,
            },
        )
        super().__init__(spec, problem)
        # By update, one more for the outcome that ends the episode.
        updates = range(made.horizon + 1)
        self._limited = made.max_tokens > 0
        self._longest = np.array([made.longest(t) for t in updates])
        self._log_longest = np.array([np.log(made.longest(t)) for t in updates])
        self._budgets = np.array([self._round_budget(min(t, made.horizon - 1)) for t in updates])

    def true_rates(self) -> np.ndarray:
        """``(batch, n)`` success rates of the rows offered now: for oracles and tests only."""
        return columns(self._offered(self.state, self.state.rates))

    def true_lengths(self) -> np.ndarray:
        """``(batch, n)`` mean tokens of the rows offered now: for oracles and tests only."""
        return columns(self._offered(self.state, self.state.length))

    def true_chances(self, most: int) -> np.ndarray:
        """``(batch, n, most + 1)`` chance that a prompt of each row offered now is solved by 0 to
        ``most`` units, in a search: for oracles and tests only.
        """  # noqa: D205
        state, made = self.state, self.scenario
        seen, _ = self._seen(state, self._offered(state, state.length))
        units = np.arange(most + 1)
        return search.solved(made.search, columns(seen)[..., None], units, made.depth)

    def _offered(self, state: RolloutState, values: np.ndarray) -> np.ndarray:
        """``(n, batch)`` of the rows offered now, from ``(items, batch)``."""
        return values if self.bins else np.take_along_axis(values, state.ids, 0)

    def _budget(self) -> np.ndarray:
        inst = self.state.instance
        each = self._budgets[: self.scenario.horizon].sum() * self.scenario.rounds
        return np.full(len(inst.budget), each)

    def _round_budget(self, step: int) -> int:
        """Rollouts of a round when the update's tokens are fixed and the longest length changes."""
        made = self.scenario
        base = made.budget // made.rounds
        if made.length_decay == 1 or not self._limited:
            return base
        mean = np.array(made.mean_tokens)
        first, now = (
            self._mean_cut(mean, self._longest[t], self._log_longest[t]) for t in (0, step)
        )
        c = made.multiple
        wanted = int(base * float(first / now)) // c * c
        return min(max(wanted, made.least, c), made.most // made.rounds // c * c)

    def _mean_cut(self, mean: np.ndarray, longest: np.ndarray, log: np.ndarray) -> np.ndarray:
        """Mean of a log-normal length cut at the longest allowed."""
        s = max(self.cost.spread, 1e-6)
        mu = np.log(mean) - s * s / 2
        z = (log - mu) / s
        return np.asarray(mean * special.ndtr(z - s) + longest * special.ndtr(-z))

    def _whole(self, mean: np.ndarray, log: np.ndarray) -> np.ndarray:
        """Chance that a rollout ends before it is cut."""
        s = max(self.cost.spread, 1e-6)
        return np.asarray(special.ndtr((log - np.log(mean) + s * s / 2) / s))

    def _fresh(self, seeds: np.ndarray) -> RolloutState:
        return sample(self.scenario, seeds, self._layout)

    def _step(self, state: RolloutState, decision: Shares) -> RolloutState:
        made, inst = self.scenario, state.instance
        whole = columns(np.asarray(decision.units))
        units = whole.astype(self.dtype)
        prompts, mean = (self._offered(state, v) for v in (state.prompts, state.length))
        seen, cut = self._seen(state, mean)
        # What the earlier rounds of this update brought; the counts of an update that is over are
        # there for its outcome only.
        within = state.round > 0
        tried, right, before = (
            np.where(within, v, self.dtype(0)) for v in (state.tried, state.right, state.tokens)
        )
        if self.bins:
            hits, mixed, tokens = groups.draw_bins(
                state, units, seen, cut, tried, self._length_spread
            )
        else:
            hits, tokens = groups.draw_prompts(state, whole, seen, cut, tried, self._length_spread)
        tried, right = tried + units, right + hits
        if made.search:
            mixed, right = self._solve(state, seen, tried, right, prompts)
        elif not self.bins:
            mixed = ((right > 0) & (right < tried)).astype(self.dtype)
        last = state.round + 1 >= inst.rounds
        summed = before + tokens
        seconds, failure = self._price(
            state, units, tokens, mean, total(summed) * (last & (not made.search))
        )
        spent = total(whole)
        after = dataclasses.replace(
            state,
            tried=tried,
            right=right,
            mixed=mixed,
            tokens=summed,
            last=state.ids,
            round=state.round + 1,
            sums=state.sums + np.stack([total(tokens), spent, seconds]),
            seconds=seconds,
            spent=spent,
            failure=failure,
        )
        if not last.any():
            return after
        ended = self._update(after, prompts)
        return ended if last.all() else after.where(last, ended)

    def _update(self, state: RolloutState, prompts: np.ndarray) -> RolloutState:
        """The policy update after an update's last round; other rows are offered."""
        made = self.scenario
        tried, mixed = state.tried, state.mixed
        share = mixed / np.maximum(prompts, 1)
        asked = np.maximum(total(prompts * (tried > 0)), 1)
        changes: dict[str, Any] = {}
        if made.search:
            changes["found"] = state.found + np.stack([total(mixed), total(prompts)])
        else:
            shared, own = law.advance(
                state.law,
                state.shared,
                state.own,
                state.by_family,
                self._offered(state, state.law.family),
                tried,
                state.right,
                share,
                prompts,
                made.three_way,
            )
            rates = law.success(state.law, shared + own)
            accuracy, by_family = law.accuracy(state.law, rates)
            changes = {
                "shared": shared,
                "own": own,
                "rates": rates,
                "accuracy": accuracy,
                "by_family": by_family,
            }
        step = state.step + 1
        return dataclasses.replace(
            state,
            ratios=np.stack(
                [total(mixed) / asked, total(tried * share) / np.maximum(total(tried), 1)]
            ),
            step=step,
            round=np.zeros_like(state.round),
            ids=state.ids
            if self.bins
            else offered(state.streams, step, self.spec.n_max, made.epoch, self.bins),
            **changes,
        )

    def _seen(self, state: RolloutState, mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Success rates as the verifier sees them and mean tokens of a rollout, ``(n, batch)`` each."""
        made = self.scenario
        seen = self._offered(state, state.rates)
        cut = mean
        if self._limited:
            longest, log = (v[state.step] for v in (self._longest, self._log_longest))
            seen = seen * self._whole(mean, log)
            cut = self._mean_cut(mean, longest, log)
        if made.false_positive or made.false_negative:
            seen = seen * (1 - made.false_negative) + (1 - seen) * made.false_positive
        return seen, cut

    def _solve(
        self,
        state: RolloutState,
        p: np.ndarray,
        tried: np.ndarray,
        right: np.ndarray,
        prompts: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts solved in this update so far, and successes of attempts that say so."""
        made = self.scenario
        if self.bins:
            chance = search.solved(made.search, p, tried / np.maximum(prompts, 1), made.depth)
            return chance.astype(self.dtype) * prompts, right
        if made.search == "best-of-n":
            return (right > 0).astype(self.dtype), right
        rows = state.ids[None] + np.arange(made.depth)[:, None, None] * len(state.length)
        draws = state.streams.tree[rows, np.arange(len(state.step))]
        done, alike = search.climb(p, tried, randomness.uniform(draws, state.step))
        return done.astype(self.dtype), alike.astype(self.dtype)

    def _price(
        self,
        state: RolloutState,
        units: np.ndarray,
        tokens: np.ndarray,
        mean: np.ndarray,
        update: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Seconds and failures of a round, ``(batch,)`` each; ``update`` is the tokens trained on."""
        streams = state.streams
        index = state.step * self.scenario.rounds + state.round
        drawn = costs.durations(
            self.cost,
            units,
            tokens,
            mean,
            randomness.short_normals(streams.lane, index, self.cost.lanes, self.dtype),
            randomness.uniform(streams.failure, index)[0],
            update,
        )
        return self._duration(self.cost, drawn), np.asarray(drawn.fails.any(0), np.int64)

    @property
    def _length_spread(self) -> Any:
        """Standard deviation of a rollout's length over its mean."""
        return self.dtype(np.sqrt(np.expm1(self.cost.spread**2)))

    def _outcome(self, state: RolloutState) -> RolloutOutcome:
        made, inst = self.scenario, state.instance
        whole, by_family = state.accuracy, state.by_family
        k, every = made.families, made.evaluation
        error = randomness.short_normals(state.streams.evaluation, state.step, k + 1, self.dtype)
        measured = whole + error[0] * np.sqrt(whole * (1 - whole) / every)
        if made.search:
            measured = whole = state.found[0] / np.maximum(state.found[1], 1)
        families = np.zeros((FAMILIES, len(state.step)), self.dtype)
        families[:k] = by_family + error[1 : k + 1] * np.sqrt(
            np.maximum(by_family * (1 - by_family), 0) * k / every
        )
        if made.length_decay != 1:
            inst = dataclasses.replace(inst, budget=self._budgets[state.step])
        # The rows offered now; the counts belong to the last ones.
        prompts = self._offered(state, state.prompts)
        share = state.mixed / np.maximum(prompts, 1)
        return RolloutOutcome(
            spent=state.spent,
            seconds=state.seconds,
            ready=columns(prompts > 0),
            failure=state.failure,
            done=state.step >= inst.horizon,
            ids=columns(state.ids),
            prompts=columns(prompts),
            last_ids=columns(state.last),
            tried=columns(state.tried),
            right=columns(state.right),
            mixed=columns(state.mixed),
            effective=columns(state.tried * share),
            tokens=columns(state.tokens),
            step=state.step,
            round=state.round,
            accuracy=np.minimum(np.maximum(measured, 0), 1),
            heldout=whole,
            family_accuracy=columns(np.minimum(np.maximum(families, 0), 1)),
            prompt_ratio=state.ratios[0],
            rollout_ratio=state.ratios[1],
            all_tokens=state.sums[0],
            all_rollouts=state.sums[1],
            all_seconds=state.sums[2],
            instance=inst,
        )


def in_bins(scenario: RolloutScenario, n: int) -> RolloutScenario:
    """The scenario with as many levels of difficulty as ``n`` rows hold.

    Raises:
        AllocgymError: the rows do not hold its bins, or its prompts do not fill them.
    """
    made = scenario
    if made.pool == "cells" or made.families * made.levels > n:
        if "levels" in made.fixed and made.families * made.levels > n:
            raise AllocgymError(f"n_max: {made.families} families x {made.levels} levels, {n} rows")
        made = dataclasses.replace(made, levels=max(n // made.families, 1))
    used = made.families * made.levels
    if used > n or made.rows < used:
        raise AllocgymError(f"n_max: {used} bins and {made.rows} prompts, {n} rows")
    return made


def in_prompts(scenario: RolloutScenario, n: int) -> RolloutScenario:
    """The scenario with ``n`` prompts offered in an update, and as many rollouts each.

    Raises:
        AllocgymError: another number of prompts was asked for.
    """
    if scenario.rows == n:
        return scenario
    if "rows" in scenario.fixed:
        raise AllocgymError(f"n_max: {scenario.rows} rows needed (a prompt each), given {n}")
    budget = scenario.budget
    if "budget" not in scenario.fixed:
        budget = max(scenario.budget // scenario.rows, 1) * n
    return dataclasses.replace(scenario, rows=n, budget=budget)
