"""The learned index: a dozen numbers, found by CMA-ES in the simulator, for any trainer.

Each prompt's value is ``p^a (1-p)^b u^c / cost^d`` times a family term and a term in progress; its
rollouts go partly by exact greedy on ``value x P(mixed)`` and partly in proportion to the value. The
rule contains uniform, posterior-greedy, Knapsack RL, Neyman's split and their cost-aware versions:
what CMA-ES finds says which of them, or what between them, a situation asks for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import rollout
from allocgym.agents.rollout_budget.rules import Rule, by_gains, proportional
from allocgym.agents.rollout_budget.view import View
from allocgym.envs.core.errors import missing_extra
from allocgym.envs.rollout_budget import algebra

TERMS = (
    "exponent of p",
    "exponent of 1 - p",
    "exponent of posterior sd",
    "exponent of cost",
    "family accuracy below the mean",
    "family's recent mixed share",
    "progress x exponent of p",
    "progress x family below the mean",
    "greedy against proportional",
    "floor",
    "least group",
)


class LearnedIndex(Rule):
    """See the module.

    Args:
        weights: one number for each of `TERMS`.
        name: shown in tables.
        loss_weight: how the loss it was trained for weighs groups.
    """

    def __init__(
        self, weights: Sequence[float], name: str = "learned", loss_weight: str = "rollout"
    ) -> None:
        self.weights = agent_file.numbers("weights", weights, len(TERMS))
        self.name = name
        self.loss_weight = loss_weight

    def value(self, view: View) -> np.ndarray:
        """``(batch, m)`` value of a rollout of each prompt."""
        w = self.weights
        p = np.clip(np.asarray(view.mean, float), 5e-3, 1 - 5e-3)
        now = (view.step / np.maximum(view.horizon, 1))[:, None]
        fam = view.of_family(np.asarray(view.family_accuracy, float))
        gap = view.accuracy[:, None] - fam
        fresh = view.of_family(view.family_mean(view.mixed, view.prompts.astype(float)))
        log = (w[0] + w[6] * now) * np.log(p) + w[1] * np.log1p(-p)
        log = log + w[2] * np.log(np.maximum(view.sd, 1e-3))
        log = log - w[3] * np.log(np.maximum(view.cost, 1e-2))
        log = log + (w[4] + w[7] * now) * 4 * gap + w[5] * 2 * (fresh - 0.5)
        log = np.where(view.prompts > 0, log, -np.inf)
        return np.asarray(np.exp(log - log.max(1, keepdims=True)))

    def units(self, view: View) -> np.ndarray:
        """See `Rule.units`."""
        w = self.weights
        value = self.value(view)
        blend = float(1 / (1 + np.exp(-2 * w[8])))
        floor = float(1 / (1 + np.exp(-2 * (w[9] - 1))))
        least = int(np.clip(np.round(2 + w[10]), 0, 4))
        even = view.prompts / np.maximum(view.prompts.sum(1, keepdims=True), 1)
        share = view.prompts * value
        share = share / share.sum(1, keepdims=True)
        shares = (1 - floor) * share + floor * even
        if blend < 0.02:
            return proportional(view, shares, least)
        a, b = np.asarray(view.a, float), np.asarray(view.b, float)
        most = int(view.high.max())
        gains = algebra.beta_gains(a, b, most) * value[..., None]
        greedy = by_gains(view, gains, max(least, 1))
        if blend > 0.98:
            return greedy
        whole = view.budget[:, None]
        return proportional(view, blend * greedy / whole + (1 - blend) * shares, 0)


START = (0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.5, -1.0)
AXES = ("rollouts", "tokens", "seconds")


def train(
    make_backend: Callable[[int], Any],
    problem: Any,
    score: Callable[[list[Any]], np.ndarray],
    iterations: int = 30,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> tuple[LearnedIndex, dict[str, Any]]:
    """Tune the weights by CMA-ES on episodes drawn from a simulator.

    Args:
        make_backend: called once with the number of episodes of a batch.
        problem: of the back end.
        score: from the outcomes of a batch of episodes to ``(batch,)`` scores, higher is better.
        iterations: generations.
        seed: of the search; the episodes' seeds are far from any used elsewhere.
        progress: told (generation, best score).

    Raises:
        ImportError: ``cma`` is not installed.
    """
    try:
        import cma
    except ImportError as error:
        raise missing_extra("cma", "learn") from error
    from allocgym.agents.rollout_budget.agent import RuleAgent

    begun, used = time.perf_counter(), time.process_time()
    batch = 16
    backend = make_backend(batch)
    search = cma.CMAEvolutionStrategy(
        np.array(START), 0.4, {"seed": seed + 1, "verbose": -9, "popsize": 8}
    )
    for iteration in range(iterations):
        seeds = 2**40 + (seed * iterations + iteration) * batch + np.arange(batch)
        candidates = search.ask()
        scores = []
        for weights in candidates:
            outcomes = rollout(RuleAgent(problem, LearnedIndex(weights)), backend, seeds)
            # Weak pull to simple rules: what does not pay should vanish.
            scores.append(-float(score(outcomes).mean()) + 2e-5 * float(np.sum(weights**2)))
        search.tell(candidates, scores)
        if progress is not None:
            progress(iteration + 1, -min(scores))
    # The distribution's mean: the best single candidate was lucky on its episodes.
    weights = [round(float(w), 5) for w in search.result.xfavorite]
    return LearnedIndex(weights), {
        "trainer": "CMA-ES",
        "iterations": iterations,
        "seed": seed,
        "episodes": iterations * batch * search.popsize,
        "seconds": round(time.perf_counter() - begun, 1),
        "cpu seconds": round(time.process_time() - used, 1),
    }
