"""A parametric controller of seven numbers, tuned by CMA-ES in the simulator.

First the population explores (PBT with its own selection and step size), then the member that promises
most gets nearly all steps while its learning rate is annealed. What "promises most" means is learned: a
member with a high learning rate looks worse than it is (its loss will fall when the rate does), and how
much to forgive it is one of the numbers. Greed is the special case 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.evolution import tune
from allocgym.agents.population.heuristics import PopulationAgent
from allocgym.envs.population.problem import Population, ranks
from allocgym.envs.population.records import Plan

PARAMETERS = (
    "share of the run that explores",
    "forgiveness of a high rate",
    "fraction that copies",
    "log step of an explored knob",
    "concentration of steps",
    "power of the annealing",
    "power of an anytime decay",
)
START = (-1.0, 0.0, -1.0, -1.0, 1.0, 0.0, -2.0)
ASSUMED = 20
"""Periods a hidden horizon is taken for."""


def _sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-np.clip(x, -30, 30))))


class IndexController(PopulationAgent):
    """Explore, then anneal the most promising member; see the module.

    Args:
        problem: `Population`, with a learning rate among its knobs.
        parameters: seven numbers, named in `PARAMETERS`, on an unbounded scale.
        name: shown in tables.
    """

    def __init__(
        self, problem: Population, parameters: Sequence[float], name: str = "index (cma)"
    ) -> None:
        super().__init__(problem)
        self.parameters = agent_file.numbers("parameters", parameters, len(PARAMETERS))
        self.name = name
        p = self.parameters
        self.explores, self.copies = 0.6 * _sigmoid(p[0]), 0.5 * _sigmoid(p[2])
        self.forgives = float(0.3 * np.tanh(p[1]))
        self.stride, self.focus = 0.7 * _sigmoid(p[3]), float(np.exp(np.clip(p[4], -3, 3)))
        self.power, self.decay = (
            float(np.exp(np.clip(p[5], -2, 2))),
            float(np.exp(np.clip(p[6], -5, 1))),
        )

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
        k = self.problem.knobs.index("learning_rate")
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


def train(
    problem: Population,
    backend: Any,
    iterations: int = 60,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[IndexController, dict[str, Any]]:
    """Tune the parameters by CMA-ES on instances drawn from a simulator.

    Raises:
        ImportError: ``cma`` is not installed.
    """

    def score(parameters: list[float], seeds: np.ndarray) -> float:
        agent = IndexController(problem, parameters)
        rollout(agent, backend, seeds)
        return float(np.mean(np.log(agent.memory.objective)))

    parameters, information = tune(
        score, backend.spec.batch_size, START, 0.7, iterations, seed, 12, progress
    )
    return IndexController(problem, parameters), information
