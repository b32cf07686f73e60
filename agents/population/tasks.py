"""Which tasks to train on, when each training is paid for and what is learned carries over to neighbours.

A row of tasks differs in one number (a length, a load, a speed). A policy trained on one serves the
others, the worse the further they are. Few trainings can be paid for; each is chosen knowing what those
before it brought.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import missing_extra

Chooser = Callable[[list[int], np.ndarray, np.ndarray, float, np.random.Generator], int]
"""From (trained so far, their values, best value of every task, slope, generator) to the next."""


def middle(count: int) -> int:
    """Where every rule below begins."""
    return (count - 1) // 2


def mbtl(
    trained: list[int],
    values: np.ndarray,
    best: np.ndarray,
    slope: float,
    rng: np.random.Generator,
    scale: float | None = None,
) -> int:
    """Model-based transfer learning (Cho et al. 2024, arXiv 2408.04498): the largest expected gain.

    The value of training on each task is modelled by a Gaussian process over the row (constant times
    RBF, noise 0.1 of the standardised values), what carries over by a linear loss with distance:
    ``argmax_i mean_j max(mu_i + scale sigma_i - slope |i - j| - best_j, 0)``.

    Args:
        trained: tasks trained on, in order.
        values: ``(k,)`` what each brought on itself.
        best: ``(n,)`` best value of every task so far.
        slope: loss a step along the row.
        rng: unused.
        scale: weight of the standard deviation; ``sqrt(log(k + 1))`` by default.
    """
    n, k = len(best), len(trained)
    if not k:
        return middle(n)
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import RBF, ConstantKernel
    except ImportError as error:
        raise missing_extra("scikit-learn", "learn") from error
    place = np.arange(n)[:, None] / n
    process = GaussianProcessRegressor(
        ConstantKernel(1.0) * RBF(0.2, (0.05, 1.0)), alpha=0.1, normalize_y=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(place[trained], values)
    mean, spread = process.predict(place, return_std=True)
    weight = np.sqrt(np.log(k + 1)) if scale is None else scale
    return pick(mean + weight * spread, best, slope, trained)


def pick(promise: np.ndarray, best: np.ndarray, slope: float, trained: list[int]) -> int:
    """The task whose training would raise the mean of the best values most, were it as promised."""
    n = len(best)
    distance = np.abs(np.arange(n)[:, None] - np.arange(n))
    gain = np.maximum(promise[:, None] - slope * distance - best, 0).mean(1)
    gain[trained] = -np.inf
    return int(gain.argmax())


def bisection(
    trained: list[int], values: np.ndarray, best: np.ndarray, slope: float, rng: np.random.Generator
) -> int:
    """The middle of the longest stretch without a training (ends count double: nobody is beyond)."""
    n = len(best)
    if not trained:
        return middle(n)
    distance = np.abs(np.arange(n)[:, None] - np.array(trained)).min(1)
    return int(distance.argmax())


def anywhere(
    trained: list[int], values: np.ndarray, best: np.ndarray, slope: float, rng: np.random.Generator
) -> int:
    """A task at random."""
    return int(rng.choice(np.setdiff1d(np.arange(len(best)), trained)))


CHOOSERS: dict[str, Chooser] = {"mbtl": mbtl, "bisection": bisection, "random": anywhere}


def equidistant(count: int, budget: int) -> list[int]:
    """Trainings at the middles of ``budget`` equal stretches: one layout, known from the start."""
    return [int((2 * i + 1) * count / (2 * budget)) for i in range(budget)]


def play(
    chooser: str, transfer: np.ndarray, slope: float, budget: int, seed: int = 0
) -> tuple[list[int], np.ndarray]:
    """Choose ``budget`` trainings one after the other.

    Args:
        chooser: a key of `CHOOSERS`, ``"equidistant"``, or ``"oracle"`` (greedy on the true matrix).
        transfer: ``(n, n)``; row i is what training on task i gives every task.
        slope: told to the chooser.
        budget: trainings.
        seed: of a random chooser.

    Returns:
        The tasks, and ``(budget,)`` the mean over tasks of the best value after each training.
    """
    n = len(transfer)
    rng = randomness.generator(seed, f"tasks {chooser}")
    best = np.full(n, transfer.min())
    trained: list[int] = []
    means = []
    for k in range(budget):
        if chooser == "equidistant":
            i = equidistant(n, budget)[k]
        elif chooser == "oracle":
            i = int(np.maximum(transfer, best).mean(1).argmax())
        else:
            values = transfer[trained, trained] if trained else np.zeros(0)
            i = CHOOSERS[chooser](trained, values, best, slope, rng)
        trained.append(i)
        best = np.maximum(best, transfer[i])
        means.append(best.mean())
    return trained, np.array(means)
