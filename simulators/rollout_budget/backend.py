"""The rollout simulator as a back end: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import special

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import columns, total
from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.kernels import kernel
from allocgym.envs.rollout_budget.problem import RolloutBudget
from allocgym.envs.rollout_budget.records import FAMILIES, RolloutOutcome
from allocgym.simulators.rollout_budget import costs, law, scenarios, search

ENGINES = ("simpy", "twin")
GRANULARITIES = ("bins", "prompts")
PER_VISIT = 4096
"""Index distance between the rollouts of two updates of one prompt."""


class RolloutSimulator(Backend[RolloutOutcome, Shares]):
    """Learning by the fitted law, cost by SimPy or its batched twin.

    Args:
        problem: `RolloutBudget`; ``problem.n_max`` rows.
        engine: ``"simpy"`` plays each round's cost event by event; ``"twin"`` computes the same
            seconds by recursion for the whole batch. Learning is the same code in both.
        scenario: a preset's name or a `scenarios.Scenario`.
        num_envs: environments in the batch.
        granularity: ``"bins"`` (families x levels of difficulty, each several alike prompts; groups
            are sampled in the mean) or ``"prompts"`` (every rollout is drawn; rollout j of prompt i
            in update t is the same under every policy). By default what the problem's mode needs.
        dtype: of the law and the seconds in ``"bins"``: ``"float64"`` or ``"float32"`` (twin only).
        cost: prices; calibrated by default.
        overrides: fields of the scenario, by keyword.
    """

    def __init__(
        self,
        problem: RolloutBudget,
        engine: str = "twin",
        scenario: str | scenarios.Scenario = "qwen1.5b-dsr",
        num_envs: int = 1,
        granularity: str | None = None,
        dtype: str = "float64",
        cost: costs.CostModel | None = None,
        **overrides: Any,
    ) -> None:
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
        if dtype not in ("float64", "float32") or (engine == "simpy" and dtype != "float64"):
            raise AllocgymError(f"dtype: 'float64', or with 'twin' 'float32'; given {dtype!r}")
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        granularity = granularity or ("bins" if problem.mode == "bins" else "prompts")
        if granularity not in GRANULARITIES:
            raise unknown("granularity", granularity, GRANULARITIES)
        made = scenarios.make(scenario, **overrides)
        self.bins = granularity == "bins"
        if self.bins:
            used = made.families * made.levels
            if made.pool == "cells":
                made = dataclasses.replace(made, levels=max(problem.n_max // made.families, 1))
                used = made.families * made.levels
            elif used > problem.n_max:
                made = dataclasses.replace(made, levels=max(problem.n_max // made.families, 1))
                used = made.families * made.levels
            if used > problem.n_max or made.rows < used:
                raise AllocgymError(
                    f"n_max: {used} bins and {made.rows} prompts, {problem.n_max} rows"
                )
            self.items = problem.n_max
        else:
            if problem.n_max != made.rows:
                group = max(made.budget // made.rows, 1) if "budget" not in overrides else 0
                budget = made.budget if group == 0 else group * problem.n_max
                made = dataclasses.replace(made, rows=problem.n_max, budget=budget)
            self.items = made.rows * made.epoch
        self.scenario, self.engine = made, engine
        self.dtype = np.dtype(dtype).type
        self.cost = cost or made.cost_model()
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
            capabilities=frozenset({"state", "oracle"}),
            details={
                "scenario": dataclasses.asdict(made),
                "granularity": granularity,
                "dtype": dtype,
            },
        )
        super().__init__(spec, problem)
        self._sampled: scenarios.Sampled | None = None

    @property
    def sampled(self) -> scenarios.Sampled:
        """Instances and laws of the running episodes."""
        if self._sampled is None:
            raise AllocgymError("backend: call reset() first")
        return self._sampled

    def true_rates(self) -> np.ndarray:
        """``(batch, n)`` success rates of the rows offered now: for oracles and tests only."""
        return columns(law.success(self.sampled.law, self._theta(), self._gather()))

    def true_lengths(self) -> np.ndarray:
        """``(batch, n)`` mean tokens of the rows offered now: for oracles and tests only."""
        return columns(self._take(self.sampled.length))

    def _theta(self) -> np.ndarray:
        return self._shared + self._own

    def _gather(self) -> np.ndarray | None:
        return None if self.bins else self._ids

    def _take(self, array: np.ndarray) -> np.ndarray:
        return array if self.bins else np.take_along_axis(array, self._ids, 0)

    def _budget(self) -> np.ndarray:
        inst = self.sampled.instance
        made = self.scenario
        if made.length_decay == 1:
            return inst.budget * inst.horizon * inst.rounds
        each = sum(self._round_budget(t) for t in range(made.horizon))
        return np.full(self.spec.batch_size, each * made.rounds)

    def _max_tokens(self, step: int) -> float:
        made = self.scenario
        if made.max_tokens <= 0:
            return np.inf
        return max(made.max_tokens * made.length_decay ** (step // made.length_every), 1.0)

    def _round_budget(self, step: int) -> int:
        """Rollouts of a round when the update's tokens are fixed and the longest length decays."""
        made = self.scenario
        base = made.budget // made.rounds
        if made.length_decay == 1 or made.max_tokens <= 0:
            return base
        first, now = (self._mean_cut(np.array(made.mean_tokens), s) for s in (0, step))
        grown = int(base * float(first / now)) // made.multiple * made.multiple
        return min(grown, made.high * made.rows // made.rounds)

    def _mean_cut(self, mean: np.ndarray, step: int) -> np.ndarray:
        """Mean of a log-normal length cut at the longest allowed."""
        most = self._max_tokens(step)
        if not np.isfinite(most):
            return mean
        s = max(self.cost.spread, 1e-6)
        mu = np.log(mean) - s * s / 2
        z = (np.log(most) - mu) / s
        return np.asarray(mean * special.ndtr(z - s) + most * special.ndtr(-z))

    def _whole(self, mean: np.ndarray, step: int) -> np.ndarray | float:
        """Chance that a rollout ends before it is cut."""
        most = self._max_tokens(step)
        if not np.isfinite(most):
            return 1.0
        s = max(self.cost.spread, 1e-6)
        return np.asarray(special.ndtr((np.log(most) - np.log(mean) + s * s / 2) / s))

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> RolloutOutcome:
        n, batch = self.spec.n_max, self.spec.batch_size
        fresh = scenarios.sample(self.scenario, seeds, self.items, self.bins, self.dtype)
        streams = {
            "rollout": randomness.stream(seeds, "rollout", self.items),
            "length": randomness.stream(seeds, "length", self.items),
            "order": randomness.stream(seeds, "order", self.items),
            "evaluation": randomness.lane_stream(seeds, "evaluation", self.scenario.families + 1),
            "lane": randomness.lane_stream(seeds, "lane", self.cost.lanes),
            "bins": randomness.lane_stream(seeds, "bins", 2 * n),
            "failure": randomness.stream(seeds, "failure"),
        }
        if self.scenario.search == "tree":
            streams["tree"] = randomness.stream(seeds, "tree", self.items * self.scenario.depth)
        real = self.dtype
        zero, none = np.zeros((n, batch), real), np.zeros(batch, real)
        blank: dict[str, Any] = {
            "shared": none,
            "own": np.zeros((self.scenario.families, batch), real),
            "tried": zero,
            "right": zero,
            "mixed": zero,
            "tokens": zero,
            "step": np.zeros(batch, np.int64),
            "round": np.zeros(batch, np.int64),
            "ratios": np.zeros((2, batch), real),
            "found": np.zeros((2, batch), real),
            "sums": np.zeros((3, batch)),
        }
        if where.all() or self._sampled is None:
            self._sampled, self._streams = fresh, streams
            for name, value in blank.items():
                setattr(self, f"_{name}", value)
            self._seconds, self._spent = none, np.zeros(batch, np.int64)
            self._failed = np.zeros(batch, np.int64)
            self._ids = self._order() if not self.bins else self._identity()
            self._last = self._ids
        else:
            old = self._sampled
            self._sampled = scenarios.Sampled(
                old.instance.where(where, fresh.instance),
                old.law.merge(where, fresh.law),
                np.where(where, fresh.length, old.length),
                np.where(where, fresh.prompts, old.prompts),
            )
            self._streams = {k: np.where(where, streams[k], v) for k, v in self._streams.items()}
            for name, value in blank.items():
                setattr(self, f"_{name}", np.where(where, value, getattr(self, f"_{name}")))
            self._seconds = np.where(where, 0.0, self._seconds)
            self._spent = np.where(where, 0, self._spent)
            self._failed = np.where(where, 0, self._failed)
            ids = self._order() if not self.bins else self._identity()
            self._ids = np.where(where, ids, self._ids)
            self._last = np.where(where, ids, self._last)
        self._rates = law.success(self.sampled.law, self._theta())
        return self._report()

    def _identity(self) -> np.ndarray:
        n = self.spec.n_max
        return np.ascontiguousarray(np.broadcast_to(np.arange(n)[:, None], (n, self._batch)))

    @property
    def _batch(self) -> int:
        return self.spec.batch_size

    def _order(self) -> np.ndarray:
        """``(n, batch)`` prompts of the coming update: every one once an epoch, order by seed."""
        n, epoch = self.spec.n_max, self.scenario.epoch
        turn = self._step // epoch
        keys = randomness.uniform(self._streams["order"], turn)
        ranked = np.argsort(keys, 0, kind="stable")
        place = (self._step % epoch) * n + np.arange(n)[:, None]
        return np.take_along_axis(ranked, place, 0)

    def _spend(self, decision: Shares) -> RolloutOutcome:
        whole = columns(np.asarray(decision.units))
        units = whole.astype(self.dtype)
        made, true = self.scenario, self.sampled.law
        step = int(self._step.max())
        mean = self._take(self.sampled.length)
        p = self._rates if self.bins else np.take_along_axis(self._rates, self._ids, 0)
        seen = p * self._whole(mean, step)
        if made.false_positive or made.false_negative:
            seen = seen * (1 - made.false_negative) + (1 - seen) * made.false_positive
        right, mixed, tokens = (
            self._sample_bins(units, seen, self._mean_cut(mean, step))
            if self.bins
            else self._sample_prompts(whole, seen, self._mean_cut(mean, step))
        )
        tried, right = self._tried + units, self._right + right
        prompts = self._take(self.sampled.prompts)
        if made.search:
            mixed, right = self._solve(seen, tried, right, prompts)
        elif not self.bins:
            mixed = ((right > 0) & (right < tried)).astype(self.dtype)
        inst = self.sampled.instance
        last = self._round + 1 >= inst.rounds
        update = total(self._tokens + tokens) * (last & (not made.search))
        index = self._step * made.rounds + self._round
        fresh = tokens
        tokens = self._tokens + tokens
        drawn = costs.durations(
            self.cost,
            units,
            fresh,
            mean,
            randomness.short_normals(self._streams["lane"], index, self.cost.lanes, self.dtype),
            randomness.uniform(self._streams["failure"], index)[0],
            update,
        )
        seconds = costs.twin_seconds if self.engine == "twin" else costs.simpy_seconds
        self._seconds = seconds(self.cost, drawn)
        self._failed = np.asarray(drawn.fails.any(0)).astype(np.int64)
        self._spent = total(whole)
        self._sums = self._sums + np.stack([total(fresh), self._spent, self._seconds])
        self._tried, self._right, self._mixed, self._tokens = tried, right, mixed, tokens
        if not last.any():
            self._round = self._round + 1
            return self._report()
        share = mixed / np.maximum(prompts, 1)
        by_family = self._by_family
        if made.search:
            self._found = self._found + np.stack([total(mixed), total(prompts)])
        else:
            self._shared, self._own = law.advance(
                true,
                self._shared,
                self._own,
                by_family,
                self._take(true.family),
                tried,
                right,
                share,
                prompts,
                made.three_way,
            )
        asked = np.maximum(total(prompts * (tried > 0)), 1)
        self._ratios = np.stack(
            [total(mixed) / asked, total(tried * share) / np.maximum(total(tried), 1)]
        )
        self._step = self._step + 1
        self._round = np.zeros_like(self._round)
        self._last = self._ids
        if not self.bins:
            self._ids = self._order()
        self._rates = law.success(true, self._theta())
        outcome = self._report()
        self._tried, self._right = np.zeros_like(tried), np.zeros_like(right)
        self._mixed, self._tokens = np.zeros_like(mixed), np.zeros_like(tokens)
        return outcome

    def _solve(
        self, p: np.ndarray, tried: np.ndarray, right: np.ndarray, prompts: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts solved in this update so far, and successes of attempts that say so."""
        made = self.scenario
        if self.bins:
            chance = search.solved(made.search, p, tried / np.maximum(prompts, 1), made.depth)
            return chance.astype(self.dtype) * prompts, right
        if made.search == "best-of-n":
            return (right > 0).astype(self.dtype), right
        rows = self._ids[None] + np.arange(made.depth)[:, None, None] * self.items
        u = randomness.uniform(self._streams["tree"][rows, np.arange(self._batch)], self._step)
        done, alike = search.climb(p, tried, u)
        return done.astype(self.dtype), alike.astype(self.dtype)

    def _sample_prompts(
        self, units: np.ndarray, p: np.ndarray, mean: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw every rollout: right or wrong; the row's tokens in the mean plus their noise."""
        n, batch = units.shape
        count = units.ravel()
        state = np.take_along_axis(self._streams["rollout"], self._ids, 0).ravel()
        start = (self._step * PER_VISIT + self._tried.astype(np.int64)).ravel()
        begin = np.cumsum(count) - count
        within = np.arange(int(count.sum())) - np.repeat(begin, count)
        u = randomness.uniform(np.repeat(state, count), np.repeat(start, count) + within)
        hits = u < np.repeat(p.ravel(), count)
        tallied = np.concatenate([[0], np.cumsum(hits)])
        right = (tallied[begin + count] - tallied[begin]).reshape(n, batch)
        index = self._step * 64 + self._round
        state = np.take_along_axis(self._streams["length"], self._ids, 0)
        noise = randomness.normal(state, index, self.dtype)
        real = units.astype(self.dtype)
        return right.astype(self.dtype), self._tried * 0, self._row_tokens(real, mean, noise)

    def _sample_bins(
        self, units: np.ndarray, p: np.ndarray, mean: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw a bin's successes (normal approximation, rounded); mixed groups in the mean."""
        index = self._step * 64 + self._round
        drawn = randomness.short_normals(self._streams["bins"], index, 2 * len(units), self.dtype)
        right, chance, tokens = (np.empty_like(units) for _ in range(3))
        _draw_bins(
            units,
            p.astype(self.dtype, copy=False),
            mean.astype(self.dtype, copy=False),
            drawn,
            self._tried,
            self.sampled.prompts,
            self._length_spread,
            right,
            chance,
            tokens,
        )
        return right, chance, tokens

    @property
    def _length_spread(self) -> Any:
        """Standard deviation of a rollout's length over its mean."""
        return self.dtype(np.sqrt(np.expm1(self.cost.spread**2)))

    def _row_tokens(self, units: np.ndarray, mean: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Tokens of each row: mean plus the noise of a sum of log-normal lengths, whole."""
        tokens = mean * (units + self._length_spread * np.sqrt(units) * noise)
        np.rint(tokens, out=tokens)
        return np.asarray(np.maximum(tokens, units, out=tokens))

    def _report(self) -> RolloutOutcome:
        made, inst = self.scenario, self.sampled.instance
        batch = self._batch
        overall, by_family = law.accuracy(self.sampled.law, self._rates)
        self._by_family = by_family
        count = made.families + 1
        error = randomness.short_normals(self._streams["evaluation"], self._step, count, self.dtype)
        every = made.evaluation
        measured = overall + error[0] * np.sqrt(overall * (1 - overall) / every)
        if made.search:
            measured = overall = self._found[0] / np.maximum(self._found[1], 1)
        families = np.zeros((FAMILIES, batch), self.dtype)
        k = made.families
        families[:k] = by_family + error[1 : k + 1] * np.sqrt(
            np.maximum(by_family * (1 - by_family), 0) * k / every
        )
        if made.length_decay != 1:
            now = min(int(self._step.max()), made.horizon - 1)
            inst = dataclasses.replace(inst, budget=np.full(batch, self._round_budget(now)))
        prompts = self._take(self.sampled.prompts)
        share = self._mixed / np.maximum(prompts, 1)
        return RolloutOutcome(
            spent=self._spent,
            seconds=self._seconds,
            ready=columns(prompts > 0),
            valid=np.ones(batch, bool),
            failure=np.zeros(batch, np.int64) + self._failed,
            done=self._step >= inst.horizon,
            ids=columns(self._ids),
            prompts=columns(prompts),
            last_ids=columns(self._last),
            tried=columns(self._tried),
            right=columns(self._right),
            mixed=columns(self._mixed),
            effective=columns(self._tried * share),
            tokens=columns(self._tokens),
            step=self._step,
            round=self._round,
            accuracy=np.minimum(np.maximum(measured, 0), 1),
            heldout=overall,
            family_accuracy=columns(np.minimum(np.maximum(families, 0), 1)),
            prompt_ratio=self._ratios[0],
            rollout_ratio=self._ratios[1],
            all_tokens=self._sums[0],
            all_rollouts=self._sums[1],
            all_seconds=self._sums[2],
            instance=inst,
        )

    _step: np.ndarray
    _round: np.ndarray
    _tried: np.ndarray
    _right: np.ndarray
    _mixed: np.ndarray
    _tokens: np.ndarray
    _sums: np.ndarray
    _shared: np.ndarray
    _own: np.ndarray
    _ratios: np.ndarray
    _failed: np.ndarray
    _found: np.ndarray
    changing = (
        "_shared",
        "_own",
        "_tried",
        "_right",
        "_mixed",
        "_tokens",
        "_step",
        "_round",
        "_ratios",
        "_found",
        "_sums",
        "_seconds",
        "_spent",
        "_failed",
        "_ids",
        "_last",
        "_rates",
    )


@kernel
def _draw_bins(
    units: np.ndarray,
    p: np.ndarray,
    mean: np.ndarray,
    drawn: np.ndarray,
    tried: np.ndarray,
    prompts: np.ndarray,
    spread: float,
    right: np.ndarray,
    mixed: np.ndarray,
    tokens: np.ndarray,
) -> None:
    n, batch = units.shape
    number = units.dtype.type
    least, one = number(1e-7), number(1)
    for j in range(n):
        for i in range(batch):
            tries = units[j, i]
            rate = min(max(p[j, i], least), one - least)
            miss = one - rate
            sd = math.sqrt(tries * rate * miss)
            hits = np.rint(tries * rate + sd * drawn[j, i])
            right[j, i] = min(max(hits, number(0)), tries)
            size = (tried[j, i] + tries) / max(prompts[j, i], one)
            # 1 - p^n - q^n, by exponentials: faster than powers.
            chance = one - math.exp(size * math.log(rate)) - math.exp(size * math.log(miss))
            mixed[j, i] = max(chance, number(0)) * prompts[j, i]
            length = mean[j, i] * (tries + spread * math.sqrt(tries) * drawn[n + j, i])
            tokens[j, i] = max(np.rint(length), tries)


def simpy_backend(problem: RolloutBudget, **arguments: Any) -> RolloutSimulator:
    """Build the SimPy reference (see `RolloutSimulator`)."""
    return RolloutSimulator(problem, engine="simpy", **arguments)


def twin_backend(problem: RolloutBudget, **arguments: Any) -> RolloutSimulator:
    """Build the batched twin (see `RolloutSimulator`)."""
    return RolloutSimulator(problem, engine="twin", **arguments)
