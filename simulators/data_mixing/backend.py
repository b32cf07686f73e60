"""The data-mixing simulator as a back end: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import columns, total
from allocgym.envs.core.contracts import Backend, Shares, Spec
from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingOutcome
from allocgym.envs.data_mixing.schedules import period_rates
from allocgym.simulators.data_mixing import costs, law, scenarios
from allocgym.simulators.data_mixing.law import Law, State

ENGINES = ("simpy", "twin")


@dataclasses.dataclass
class Dynamics:
    """The true law of a batch of episodes, to differentiate or to search.

    Attributes:
        law: parameters, ``(n, batch)`` and ``(n, n, batch)``.
        effort: ``(batch,)`` hundreds of steps in a period.
        rates: ``(horizon, batch)`` learning rate of each period.
    """

    law: Law
    effort: Any
    rates: Any

    def begin(self) -> State:
        """State at the start."""
        return law.begin(self.law)

    def step(self, state: State, units: Any, period: int) -> tuple[State, Any]:
        """Train one period; return the new state and its ``(n, batch)`` losses without noise."""
        lr = self.rates[period]
        before = self.rates[period - 1] if period else self.law.rate_start
        state = law.advance(self.law, state, units, self.effort, lr, before)
        return state, law.losses(self.law, state, lr)


class MixingSimulator(Backend[MixingOutcome, Shares]):
    """Learning by the fitted law, cost by SimPy or its batched twin.

    Args:
        problem: `DataMixing`.
        engine: ``"simpy"`` plays each period's cost event by event; ``"twin"`` computes the same
            seconds by recursion for the whole batch. Learning is the same code in both.
        scenario: name of a scenario or a `scenarios.Scenario`.
        num_envs: environments in the batch.
        dtype: ``"float64"`` (default) or ``"float32"`` (twin only; twice as fast, 1e-4).
        cost: prices; `costs.CostModel` by default.
        overrides: fields of the scenario, by keyword.
    """

    changing = ("_state", "_period", "_lr", "_units", "_seen", "_heldout")

    def __init__(
        self,
        problem: DataMixing,
        engine: str = "twin",
        scenario: str | scenarios.Scenario = "continual-pretraining",
        num_envs: int = 1,
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
        self.scenario = scenarios.make(scenario, **overrides)
        self.engine = engine
        self.dtype = np.dtype(dtype).type
        self.cost = cost or costs.CostModel()
        spec = Spec(
            problem=problem.id,
            scenario=self.scenario.name,
            backend=engine,
            claimants=tuple(f"domain-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit=f"sequence of {self.cost.tokens_per_unit:g} tokens",
            horizon=self.scenario.horizon,
            batch_size=num_envs,
            capabilities=frozenset({"state", "oracle"}),
            details={"scenario": dataclasses.asdict(self.scenario), "dtype": dtype},
        )
        super().__init__(spec, problem)
        horizon = self.scenario.horizon
        table = np.stack([period_rates(s, horizon) for s in self.scenario.schedules])
        # Rate of the period after t of them (the last one's, when all are over), and the mean rate
        # over what is left (0 when nothing is).
        now = np.concatenate([table, table[:, -1:]], 1)
        rest = np.cumsum(table[:, ::-1], 1)[:, ::-1] / np.arange(horizon, 0, -1)
        left = np.concatenate([rest, np.zeros((len(table), 1))], 1)
        self._rates = np.stack([now, left]).astype(self.dtype)
        self._sampled: scenarios.Sampled | None = None
        self._heldout = np.zeros((problem.n_max, num_envs))

    @property
    def learning_law(self) -> law.Law:
        """The true parameters of the running episodes: for oracles and tests only."""
        return self._law

    @property
    def rates(self) -> np.ndarray:
        """``(horizon, batch)`` mean learning rate of each period."""
        return self._rates[0, self.sampled.schedule, :-1].T

    @property
    def sampled(self) -> scenarios.Sampled:
        """Instances and laws of the running episodes."""
        if self._sampled is None:
            raise AllocgymError("backend: call reset() first")
        return self._sampled

    def _budget(self) -> np.ndarray:
        inst = self.sampled.instance
        return inst.budget * inst.horizon

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> MixingOutcome:
        n, batch = self.spec.n_max, self.spec.batch_size
        if where.all():
            new = self._sample(seeds)
            self._sampled = new
            self._law = new.law
            self._state = law.begin(self._law)
            self._period = np.zeros(batch, np.int64)
            self._lr = self._law.rate_start.copy()
            self._streams = self._open_streams(seeds)
            self._units = np.zeros((n, batch), np.int64)
            self._seen = np.zeros((n, batch), np.int64)
        else:
            old = self.sampled
            new = self._sample(seeds[where])
            self._merge(old, new, where)
            for mine, fresh in zip(self._streams, self._open_streams(seeds), strict=True):
                mine[:, where] = fresh[:, where]
            # New arrays: the outcomes handed out so far hold the old ones.
            self._period = np.where(where, 0, self._period)
            self._lr = np.where(where, self._law.rate_start, self._lr)
            self._units = np.where(where, 0, self._units)
            self._seen = np.where(where, 0, self._seen)
        sampled = self.sampled
        self._domains = sampled.instance.present.sum(1).astype(self.dtype)
        value = law.losses(self._law, self._state, self._law.rate_start)
        if not where.all():
            value = np.where(where, value, self._heldout)
            seconds = np.where(where, 0.0, self.outcome.seconds)
        else:
            seconds = np.zeros(batch)
        self._heldout = value
        none = np.zeros(batch, np.int64)
        return self._report(np.where(where, 0, self._units.sum(0)), seconds, none)

    def _sample(self, seeds: np.ndarray) -> scenarios.Sampled:
        """Draw instances and laws, in this back end's precision."""
        new = scenarios.sample(self.scenario, seeds, self.spec.n_max)
        if self.dtype is np.float64:
            return new

        def narrow(array: np.ndarray) -> np.ndarray:
            return array.astype(self.dtype) if array.dtype.kind == "f" else array

        return scenarios.Sampled(
            new.instance.map(narrow),
            new.law.map(narrow),
            new.schedule,
            narrow(new.slowness),
            narrow(new.noise),
        )

    def _merge(self, old: scenarios.Sampled, new: scenarios.Sampled, where: np.ndarray) -> None:
        """Overwrite the environments in ``where`` by freshly sampled ones."""
        spread = np.cumsum(where) - 1
        spread[~where] = 0
        self._sampled = scenarios.Sampled(
            instance=old.instance.where(where, new.instance.rows(spread)),
            law=old.law,
            schedule=np.where(where, new.schedule[spread], old.schedule),
            slowness=np.where(where, new.slowness[:, spread], old.slowness),
            noise=np.where(where, new.noise[:, spread], old.noise),
        )
        fresh = new.law.map(lambda a: a[..., spread])
        self._law.put(where, fresh)
        self._state.put(where, law.begin(fresh))

    def _open_streams(self, seeds: np.ndarray) -> tuple[np.ndarray, ...]:
        n, chunks = self.spec.n_max, self.cost.chunks
        return (
            randomness.lane_stream(seeds, "evaluation", n),
            randomness.lane_stream(seeds, "duration", 2 * chunks),
            randomness.stream(seeds, "failure"),
        )

    def _spend(self, decision: Shares) -> MixingOutcome:
        units = columns(decision.units)
        inst = self.sampled.instance
        lr = self.outcome.lr
        amounts = units.astype(self.dtype)
        self._state, self._heldout = law.train(
            self._law, self._state, amounts, inst.effort, lr, self._lr
        )
        self._lr = lr
        _, duration, failure = self._streams
        chunks = self.cost.chunks
        jitter = randomness.short_normals(duration, self._period, 2 * chunks, self.dtype)
        drawn = costs.durations(
            self.cost,
            amounts,
            self.sampled.slowness,
            self._domains,
            jitter[:chunks],
            jitter[chunks:],
            randomness.uniform(failure, self._period)[0],
        )
        seconds = costs.twin_seconds if self.engine == "twin" else costs.simpy_seconds
        self._period = self._period + 1
        self._units = units
        self._seen = self._seen + units
        return self._report(total(units), seconds(self.cost, drawn), drawn.fails.sum(0))

    def _report(self, spent: np.ndarray, seconds: np.ndarray, failure: np.ndarray) -> MixingOutcome:
        inst = self.sampled.instance
        batch = self.spec.batch_size
        error = randomness.short_normals(
            self._streams[0], self._period, self.spec.n_max, self.dtype
        )
        error *= self.sampled.noise
        error += self._heldout
        at = self.sampled.schedule * self._rates.shape[-1] + self._period
        lr, left = self._rates.reshape(2, -1).take(at, 1)
        return MixingOutcome(
            spent=spent,
            seconds=seconds,
            ready=inst.present,
            valid=np.ones(batch, bool),
            failure=failure,
            done=self._period >= inst.horizon,
            losses=columns(np.maximum(error, 1e-3, out=error)),
            heldout=columns(self._heldout),
            units=columns(self._units),
            seen=columns(self._seen),
            period=self._period,
            lr=lr,
            lr_left=left,
            instance=inst,
        )

    def dynamics(self, convert: Callable[[np.ndarray], Any]) -> Dynamics:
        """Return the running episodes' true law over other arrays: for oracles and gradients.

        Args:
            convert: turns a NumPy array into the arrays wanted (to tensors, for example).
        """
        inst = self.sampled.instance
        return Dynamics(self._law.map(convert), convert(inst.effort), convert(self.rates))


def simpy_backend(problem: DataMixing, **arguments: Any) -> MixingSimulator:
    """Build the SimPy reference (see `MixingSimulator`)."""
    return MixingSimulator(problem, engine="simpy", **arguments)


def twin_backend(problem: DataMixing, **arguments: Any) -> MixingSimulator:
    """Build the batched twin (see `MixingSimulator`)."""
    return MixingSimulator(problem, engine="twin", **arguments)
