"""Clairvoyant single runs: schedules searched on the simulator's true law, with the whole compute."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.agents.population.heuristics import OneRun, shaped
from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan

PEAKS = np.linspace(0.0, 1.0, 24)
SHARES = (0.1, 0.2, 0.4)


class SearchedRun(OneRun):
    """One member, all steps, the schedule that ends lowest under the true parameters.

    Candidates are played as members of the true law, so a search costs a few hundred training runs of
    arithmetic. Copies cannot add training to a lineage, so no population ends below the best single run
    with the same total steps, up to luck in who is chosen.

    Args:
        problem: `Population`.
        free: search a rate per knot (the oracle) instead of WSD's peak and decay (tuned WSD).
        knots: of the free schedule, interpolated over the run on the log scale.
        rounds: of the cross-entropy search.
        candidates: of each round.
    """

    clairvoyant = True

    def __init__(
        self,
        problem: Population,
        free: bool = True,
        knots: int = 8,
        rounds: int = 12,
        candidates: int = 96,
    ) -> None:
        super().__init__(problem, "wsd")
        self.free, self.knots, self.rounds, self.candidates = free, knots, rounds, candidates
        self.name = "oracle" if free else "tuned wsd (whole compute)"

    def peek(self, backend: Any) -> None:
        """Search on the running episodes' true parameters.

        Raises:
            AllocgymError: members report one at a time: no single run can have all the steps.
        """
        if backend.scenario.asynchronous:
            raise AllocgymError(
                f"agent {self.name!r}: bounds nothing where members report one at a time "
                f"(scenario {backend.scenario.name!r})"
            )
        self._backend = backend
        inst = backend.outcome.instance
        k = self.rate
        first = np.where(inst.present, backend.outcome.knobs[..., k], -np.inf)
        # Where rates may only fall, the member that starts highest can do all that others can.
        falls = backend.family.falling
        self._member = first.argmax(1) if falls else np.zeros(len(first), np.int64)
        self._low, self._high = np.log(inst.low[:, k]), np.log(inst.high[:, k])
        periods = int(inst.horizon.max())
        x = (np.arange(periods)[:, None] + 1) / inst.horizon
        self._rates = self._tuned(x)
        if self.free:
            self._rates = self._searched(np.minimum(x, 1.0))

    def _play(self, rates: np.ndarray) -> np.ndarray:
        """Final losses ``(candidates, batch)`` of rates ``(periods, candidates, batch)``."""
        backend = self._backend
        inst, law, family = backend.outcome.instance, backend.state.law, backend.family
        periods, count, batch = rates.shape
        middle = np.sqrt(inst.low * inst.high).T[:, None]
        knobs = np.broadcast_to(middle, (len(middle), count, batch)).copy()
        k = self.rate
        knobs[k] = rates[0]
        steps = np.broadcast_to(inst.present.sum(1) * inst.interval, (count, batch))
        state = family.begin(law, backend.full(knobs))
        if family.falling:
            # Warm-up happened at each member's own first rate.
            own = backend.outcome.knobs[np.arange(batch), self._member, k]
            first = np.broadcast_to(own, (count, batch))
            knobs[k] = first
            state = family.begin(law, backend.full(knobs))
        for t in range(periods):
            knobs[k] = np.minimum(rates[t], first) if family.falling else rates[t]
            on = steps * (t < inst.horizon)
            state = family.train(law, state, backend.full(knobs), on)
        loss = family.loss(law, state)
        return np.where(np.isfinite(loss), loss, 1e9)

    def _tuned(self, x: np.ndarray) -> np.ndarray:
        plans = []
        for share in SHARES:
            u = np.clip((np.minimum(x, 1.0) - (1 - share)) / share, 0, 1)
            for place in PEAKS:
                peak = np.exp(self._low + place * (self._high - self._low))
                plans.append(shaped(np.exp(self._low), peak, 1 - np.sqrt(u)))
        rates = np.stack(plans, 1)
        best = self._play(rates).argmin(0)
        return rates[:, best, np.arange(rates.shape[2])]

    def _searched(self, x: np.ndarray) -> np.ndarray:
        rng = randomness.generator(0, "oracle")
        batch = x.shape[1]
        knot = np.linspace(0, 1, self.knots)
        weight = np.maximum(1 - np.abs(x[:, None] - knot[:, None]) * (self.knots - 1), 0)
        mean = np.stack(
            [
                np.log([np.interp(z, x[:, e], self._rates[:, e]) for z in knot])
                for e in range(batch)
            ],
            1,
        )
        spread = np.full_like(mean, 0.7)
        best, kept = self._play(self._rates[:, None])[0], self._rates
        columns = np.arange(batch)
        for _ in range(self.rounds):
            drawn = mean[:, None] + spread[:, None] * rng.normal(
                size=(self.knots, self.candidates, batch)
            )
            drawn = np.clip(drawn, self._low, self._high)
            rates = np.exp(np.einsum("pkb,kcb->pcb", weight, drawn))
            loss = self._play(rates)
            order = loss.argsort(0)[: self.candidates // 8]
            elite = np.take_along_axis(drawn, order[None], 1)
            mean, spread = elite.mean(1), elite.std(1) + 0.02
            better = loss.min(0) < best
            best = np.minimum(best, loss.min(0))
            kept = np.where(better, rates[:, loss.argmin(0), columns], kept)
        return kept

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        k = self.rate
        period = np.minimum(self.outcome.period, len(self._rates) - 1)
        knobs = self.outcome.knobs.copy()
        row = np.arange(len(period))
        knobs[row, self._member, k] = self._rates[period, row]
        weights = np.zeros(self.here.shape)
        weights[row, self._member] = 1
        return self.plan(self.keep, knobs, weights)
