"""A parametric controller of seven numbers, tuned by CMA-ES in the simulator.

First the population explores (PBT with its own selection and step size), then the member that promises
most gets nearly all steps while its learning rate is annealed. What "promises most" means is learned: a
member with a high learning rate looks worse than it is (its loss will fall when the rate does), and how
much to forgive it is one of the numbers. Greed is the special case 0.
"""

from __future__ import annotations

import numpy as np

from allocgym.agents.core.parametric import Parametric
from allocgym.agents.population.heuristics import PopulationAgent
from allocgym.envs.population.problem import ranks
from allocgym.envs.population.records import Plan

ASSUMED = 20
"""Periods a hidden horizon is taken for."""


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -30, 30))))


class IndexController(Parametric, PopulationAgent):
    """Explore, then anneal the most promising member; see the module.

    The numbers are on an unbounded scale.
    """

    kind = "index"
    parameters = (
        "share of the run that explores",
        "forgiveness of a high rate",
        "fraction that copies",
        "log step of an explored knob",
        "concentration of steps",
        "power of the annealing",
        "power of an anytime decay",
    )
    start = (-1.0, 0.0, -1.0, -1.0, 1.0, 0.0, -2.0)
    spread = 0.7
    candidates = 12
    stream = "learned (cma)"
    """Whatever the file is called; the name is that of the first one."""

    def _start(self) -> None:
        super()._start()
        p = self.weights
        self.explores, self.copies = 0.6 * _sigmoid(p[0]), 0.5 * _sigmoid(p[2])
        self.forgives = float(0.3 * np.tanh(p[1]))
        self.stride, self.focus = 0.7 * _sigmoid(p[3]), float(np.exp(np.clip(p[4], -3, 3)))
        self.power = float(np.exp(np.clip(p[5], -2, 2)))
        self.decay = float(np.exp(np.clip(p[6], -5, 1)))

    def _progress(self) -> tuple[np.ndarray, np.ndarray]:
        """Fraction of the run done before and after the coming period, ``(batch,)`` each."""
        inst, out = self.outcome.instance, self.outcome
        done = inst.total - out.left
        whole = np.where(inst.hidden > 0, inst.present.sum(1) * inst.interval * ASSUMED, inst.total)
        return done / whole, (done + out.grant) / whole

    def _shape(self, x: np.ndarray) -> np.ndarray:
        """Learning rate over that at the end of exploration, at progress ``x``."""
        u = np.clip((x - self.explores) / (1 - self.explores), 0, 1)
        known = (1 - u * 0.995) ** self.power
        anytime = (1 + np.maximum(x - self.explores, 0) * ASSUMED) ** -self.decay
        return np.where(self.outcome.instance.hidden > 0, anytime, known)

    def ask(self) -> Plan:
        """See `Agent.ask`."""
        k = self.rate
        inst, here = self.outcome.instance, self.here
        before, after = self._progress()
        span = np.log(inst.high[:, k] / inst.low[:, k])[:, None]
        height = np.log(self.outcome.knobs[..., k] / inst.low[:, k][:, None]) / span
        left = 1 - np.clip(before, 0, 1)[:, None]
        score = self.memory.last - self.forgives * height * left
        rank = ranks(score, here)
        best = np.where(here, score, np.inf).argmin(1)[:, None]
        exploring = (before < self.explores)[:, None]
        count = np.maximum(here.sum(1), 1)[:, None]
        worst = rank >= count - np.floor(self.copies * count)
        lost = inst.present & ~self.outcome.alive
        donor = np.where((worst & exploring) | lost, best, self.keep)
        moved = donor != self.keep
        knobs = np.take_along_axis(self.outcome.knobs, donor[..., None], 1)
        jump = np.exp(self.stride * self.rng.choice([-1.0, 1.0], knobs.shape))
        knobs = np.where(moved[..., None], knobs * jump, knobs)
        factor = np.where(exploring[:, 0], 1.0, self._shape(after) / self._shape(before))
        knobs[..., k] *= factor[:, None]
        weights = np.where(exploring, here | moved, here * np.exp(-self.focus * rank))
        return self.plan(donor, knobs, weights)
