"""The data-mixing simulator as a back end: SimPy reference and batched twin."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import columns, total
from allocgym.envs.core.contracts import Shares, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingOutcome
from allocgym.envs.data_mixing.schedules import period_rates
from allocgym.simulators.core.simulator import Simulator, check_engine
from allocgym.simulators.data_mixing import costs, ensemble, law
from allocgym.simulators.data_mixing.law import Law, State
from allocgym.simulators.data_mixing.sampling import MixingState, sample
from allocgym.simulators.data_mixing.scenario import SCENARIOS, MixingScenario


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


class MixingSimulator(Simulator[MixingOutcome, Shares, MixingState]):
    """Learning by the fitted law, cost by SimPy or its batched twin.

    Args:
        problem: `DataMixing`.
        scenario: to draw episodes from.
        num_envs: environments in the batch.
        engine: ``"simpy"`` plays each period's cost event by event; ``"twin"`` computes the same
            seconds by recursion for the whole batch. Learning is the same code in both.
        dtype: ``"float64"`` (default) or ``"float32"`` (twin only; twice as fast, 1e-4).
        cost: prices, or fields of `costs.CostModel` by name.
    """

    scenarios: ClassVar[Mapping[str, MixingScenario]] = SCENARIOS

    def __init__(
        self,
        problem: DataMixing,
        scenario: MixingScenario,
        num_envs: int = 1,
        engine: str = "twin",
        dtype: str = "float64",
        cost: costs.CostModel | Mapping[str, Any] | None = None,
    ) -> None:
        check_engine(engine)
        if dtype not in ("float64", "float32") or (engine == "simpy" and dtype != "float64"):
            raise AllocgymError(f"dtype: 'float64', or with 'twin' 'float32'; given {dtype!r}")
        if scenario.domains[1] > problem.n_max:
            raise AllocgymError(
                f"n_max: the scenario has up to {scenario.domains[1]} domains, given {problem.n_max}"
            )
        self.scenario = scenario
        self.dtype = np.dtype(dtype).type
        self.cost = costs.CostModel().given(cost)
        self._duration = costs.twin_seconds if engine == "twin" else costs.simpy_seconds
        horizon = scenario.horizon
        spec = Spec(
            problem=problem.id,
            scenario=scenario.name,
            backend=engine,
            claimants=_names(scenario, problem.n_max),
            n_max=problem.n_max,
            unit=f"sequence of {self.cost.tokens_per_unit:g} tokens",
            horizon=horizon,
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={"scenario": dataclasses.asdict(scenario), "dtype": dtype},
        )
        super().__init__(spec, problem)
        table = np.stack([period_rates(s, horizon) for s in scenario.schedules])
        # Rate of the period after t of them (the last one's, when all are over), and the mean rate
        # over what is left (0 when nothing is).
        now = np.concatenate([table, table[:, -1:]], 1)
        rest = np.cumsum(table[:, ::-1], 1)[:, ::-1] / np.arange(horizon, 0, -1)
        left = np.concatenate([rest, np.zeros((len(table), 1))], 1)
        self._rates = np.stack([now, left]).astype(self.dtype)

    @classmethod
    def suits(cls, scenario: MixingScenario) -> Mapping[str, Any]:
        """See `Backend.suits`: more rows where the scenario has more domains."""
        return {"n_max": scenario.domains[1]} if scenario.domains[1] > 8 else {}

    @property
    def rates(self) -> np.ndarray:
        """``(horizon, batch)`` mean learning rate of each period."""
        return self._rates[0, self.state.schedule, :-1].T

    def _budget(self) -> np.ndarray:
        inst = self.state.instance
        return inst.budget * inst.horizon

    def _fresh(self, seeds: np.ndarray) -> MixingState:
        drawn = sample(self.scenario, seeds, self.spec.n_max, self.cost)
        if self.dtype is np.float64:
            return drawn
        seconds = drawn.seconds
        narrow = drawn.map(lambda a: a.astype(self.dtype) if a.dtype.kind == "f" else a)
        return dataclasses.replace(narrow, seconds=seconds)

    def _step(self, state: MixingState, decision: Shares) -> MixingState:
        units = columns(decision.units)
        lr, _ = self._rates_of(state)
        amounts = units.astype(self.dtype)
        learning, heldout = law.train(
            state.law, state.learning, amounts, state.instance.effort, lr, state.lr
        )
        chunks = self.cost.chunks
        jitter = randomness.short_normals(state.duration, state.period, 2 * chunks, self.dtype)
        drawn = costs.durations(
            self.cost,
            amounts,
            state.slowness,
            state.instance.present.sum(1).astype(self.dtype),
            jitter[:chunks],
            jitter[chunks:],
            randomness.uniform(state.chance, state.period)[0],
        )
        return dataclasses.replace(
            state,
            learning=learning,
            heldout=heldout,
            lr=lr,
            units=units,
            seen=state.seen + units,
            period=state.period + 1,
            seconds=self._duration(self.cost, drawn),
            failure=drawn.fails.sum(0),
        )

    def _rates_of(self, state: MixingState) -> tuple[np.ndarray, np.ndarray]:
        """Learning rate of the coming period and mean rate of all that is left, ``(batch,)`` each."""
        at = state.schedule * self._rates.shape[-1] + state.period
        lr, left = self._rates.reshape(2, -1).take(at, 1)
        return lr, left

    def _outcome(self, state: MixingState) -> MixingOutcome:
        error = randomness.short_normals(
            state.evaluation, state.period, self.spec.n_max, self.dtype
        )
        error *= state.noise
        error += state.heldout
        lr, left = self._rates_of(state)
        return MixingOutcome(
            spent=total(state.units),
            seconds=state.seconds,
            ready=state.instance.present,
            done=state.period >= state.instance.horizon,
            failure=state.failure,
            losses=columns(np.maximum(error, 1e-3, out=error)),
            heldout=columns(state.heldout),
            units=columns(state.units),
            seen=columns(state.seen),
            period=state.period,
            lr=lr,
            lr_left=left,
            instance=state.instance,
        )

    def dynamics(self, convert: Callable[[np.ndarray], Any]) -> Dynamics:
        """Return the running episodes' true law over other arrays: for oracles and gradients.

        Args:
            convert: turns a NumPy array into the arrays wanted (to tensors, for example).
        """
        state = self.state
        return Dynamics(state.law.map(convert), convert(state.instance.effort), convert(self.rates))


def _names(scenario: MixingScenario, n_max: int) -> tuple[str, ...]:
    """Of the rows: those of a fitted table's domains, where there is one."""
    known = ensemble.read(scenario.fit).domains if scenario.fit else ()
    return known + tuple(f"domain-{i}" for i in range(len(known), n_max))
