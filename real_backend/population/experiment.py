"""A Ray Tune experiment of a user's, described as a population: what `tune.PopulationScheduler` takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.scenario import Checked, within
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import PopulationInstance


@dataclasses.dataclass(frozen=True)
class Experiment(Checked):
    """A user's experiment as a population.

    Attributes:
        ranges: from each knob to (low, high), both > 0.
        members: trials (``num_samples``).
        interval: results of a trial in an ordinary period.
        horizon: periods that the controller decides.
        metric: key of a loss > 0 in the results, such as a validation loss.
        heldout: key of a test loss, or None; agents are not shown it.
        loss: turns the metric into a loss > 0, where it is none.
        noise: rough standard deviation of the log of the metric.
        seed: of what the problem draws itself.
    """

    ranges: Mapping[str, tuple[float, float]]
    members: int = within(8, 2, 64)
    interval: int = within(1, 1, 10**7)
    horizon: int = within(20, 1, 100_000)
    metric: str = "loss"
    heldout: str | None = None
    loss: Callable[[float], float] = float
    noise: float = within(0.02, 1e-9, 10)
    seed: int = within(0, 0, 2**40)

    def __post_init__(self) -> None:
        super().__post_init__()
        for low, high in self.ranges.values():
            if not 0 < low < high:
                raise AllocgymError(f"ranges: 0 < low < high expected, given {dict(self.ranges)}")

    def instance(self, problem: Population) -> PopulationInstance:
        """What the problem knows before the episode.

        Raises:
            AllocgymError: ranges of other knobs than the problem's, more members than rows.
        """
        if set(self.ranges) != set(problem.knobs):
            raise AllocgymError(f"ranges: of {problem.knobs} expected, given {sorted(self.ranges)}")
        if self.members > problem.n_max:
            raise AllocgymError(f"members: at most n_max = {problem.n_max}, given {self.members}")
        bounds = np.array([self.ranges[k] for k in problem.knobs], float)
        return PopulationInstance(
            present=np.arange(problem.n_max)[None] < self.members,
            low=bounds[None, :, 0],
            high=bounds[None, :, 1],
            interval=np.array([self.interval]),
            horizon=np.array([self.horizon]),
            hidden=np.zeros(1),
            edge=np.zeros(1),
            monotone=np.zeros(1, bool),
            noise=np.array([self.noise]),
            stream=randomness.stream(np.array([self.seed]), "resample")[0],
        )
