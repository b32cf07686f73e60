"""``--suite toys``: PBT's own toy, and one that greed loses."""

from __future__ import annotations

import time

import numpy as np

from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.simulators.population.toys import Toy, additive, deceptive, multiplicative


def greedy(rate: float, period: int, periods: int) -> float:
    """Whatever lowers the loss most right now: the rate at once to 0."""
    return 0.0


def linear(rate: float, period: int, periods: int) -> float:
    """Falls evenly."""
    return 1 - period / (periods - 1)


def patient(rate: float, period: int, periods: int) -> float:
    """Holds, and lets the rate go at the end."""
    return 0.0 if period == periods - 1 else 1.0


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    seeds = range(5 if options.quick else 20)
    grid = Toy(copies=False).play()
    stuck = Toy(explore=multiplicative).play()
    free = [Toy(explore=additive).play(seed) for seed in seeds]
    weights = Toy(copy_knobs=False).play()
    losses = {f.__name__: deceptive(f) for f in (greedy, linear, patient)}
    show(
        "PBT's toy: best true score",
        ["method", "Q"],
        [
            ["grid", grid],
            ["copy, x 0.8 / 1.2", stuck],
            ["copy weights only", weights],
            ["copy, + N(0, 0.1), mean", float(np.mean(free))],
        ],
    )
    show("deceptive toy: final loss", ["policy", "loss"], [[k, v] for k, v in losses.items()])
    figures = [
        Figure("PBT toy: grid", round(grid, 4), "0.39", abs(grid - 0.39) < 0.005),
        Figure(
            "PBT toy: multiplicative from zero",
            round(stuck, 4),
            "stuck at 0.39",
            abs(stuck - 0.39) < 0.005,
        ),
        Figure("PBT toy: additive, worst seed", round(min(free), 4), ">= 1.19", min(free) >= 1.19),
        Figure(
            "deceptive toy: greedy minus patient",
            round(losses["greedy"] - losses["patient"], 4),
            "> 0",
            losses["greedy"] > losses["linear"] > losses["patient"],
        ),
    ]
    return finish("toys", figures, {"deceptive": losses}, begun, options)
