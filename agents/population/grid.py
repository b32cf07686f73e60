"""WSD tuned honestly: the grid of peaks is paid for out of the same total compute."""

from __future__ import annotations

import numpy as np

from allocgym.agents.population.heuristics import PopulationAgent, wsd
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan


class GridWSD(PopulationAgent):
    """Members try a grid of peak rates; the best peak may then get a long run from fresh weights.

    Args:
        problem: `Population`, with a learning rate among its knobs.
        share: of the budget that the grid takes. 1: every member runs WSD to the end at its own peak,
            and the best is the result. Less: short runs of WSD at all but one member; the one kept
            back then trains with all that is left at the peak that ended best.
        assumed: periods the schedule is laid out for where the horizon is hidden.
    """

    def __init__(self, problem: Population, share: float = 1.0, assumed: int = 20) -> None:
        super().__init__(problem)
        self.share, self.assumed = share, assumed
        self.name = "wsd (grid of full runs)" if share == 1 else "wsd (grid, then one long run)"

    def _start(self) -> None:
        super()._start()
        self._peak: np.ndarray | None = None

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        out, inst = self.outcome, self.outcome.instance
        k = self.rate
        horizon = np.where(inst.hidden > 0, self.assumed, inst.horizon)
        last = inst.present.sum(1) - 1
        count = last + (self.share == 1)
        place = (np.arange(self.problem.n_max) + 0.5) / count[:, None]
        low, high = inst.low[:, k : k + 1], inst.high[:, k : k + 1]
        peaks = low * (high / low) ** np.clip(place, 0, 1)
        trial = np.maximum(np.round(self.share * horizon), 1)
        trying = (out.period < trial) | (self.share == 1)
        own = np.arange(self.problem.n_max)
        grid = (own < count[:, None]) & inst.present
        # Decided once, on the last reports of the grid.
        scores = np.where(grid & out.alive, self.memory.last, np.inf)
        winner = np.take_along_axis(peaks, scores.argmin(1)[:, None], 1)
        fresh = (out.used[np.arange(len(last)), last] == 0) | trying
        self._peak = winner if self._peak is None else np.where(fresh[:, None], winner, self._peak)
        begun = np.where(trying, 0, trial)
        length = np.where(trying, trial, np.maximum(horizon - trial, 1))
        factor = wsd(np.minimum((out.period - begun + 1) / length, 1.0))[:, None]
        rate = np.where(trying[:, None], peaks, self._peak)
        knobs = out.knobs.copy()
        knobs[..., k] = np.maximum(rate * factor, low)
        weights = np.where(trying[:, None], grid, own == last[:, None])
        return self.plan(self.keep, knobs, weights)
