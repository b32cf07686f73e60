"""``allocgym/Population-v0``: divide training steps over members that may copy each other."""

from __future__ import annotations

from typing import Any

from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class PopulationEnv(AllocationEnv):
    """Population Based Training as an environment: copy, perturb, and divide steps over members.

    ## Description
    M members train in parallel from one budget of optimiser steps. Every period each member may take
    over another's weights, change its hyperparameters and get more or fewer steps. Training past the
    stability edge diverges; measured losses are noisy; the horizon may be hidden.

    ## Observation
    A `Dict`, clipped to [-10, 10]:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 11 + k)` float32 | per member: rank, z-score, slopes of its last two reports, distance to its own best and to the best member, extrapolated gain, steps over fair share, age since copy, alive, reports now, log of each of k knobs scaled to its prior (the learning rate relative to the edge where that is told) |
    | `context` | `(9,)` float32 | budget left (0 where hidden), hidden horizon, log members, gain so far, gain of the last report, log spread, noise, edge told, falling rates only |
    | `present` | `(n_max,)` int8 | 1 for members, 0 for padding |

    ## Action
    `MultiDiscrete`, per member: donor (0 keep; 1 to 4: the members at rank 0, 1/8, 1/4, 1/2 of those
    alive, resolved against the scores at the start of the period, all at once), one of
    {x 0.8, same, x 1.2, resample} per knob, steps at level {0, 1/2, 1, 2} rounded to the period's total.
    Members that do not report keep their state whatever their entries say.

    ## Reward
    At the end: log of the lowest loss before training over the test loss of the member with the best
    measured loss. `dense=True` pays the fall of the best measured log loss each period; it teaches greed.

    ## Episode end
    Terminates when the budget of member-steps is spent. Never truncates.

    ## Arguments
    - `scenario`: `"unknown-edge"` (default), `"known-edge"`, `"hidden-horizon"`, `"stragglers"`,
      `"language-model"`, `"language-model-hidden"`; fields can be overridden by keyword.
    - `backend`: `"simpy"` (default), `"twin"` or `"real"`.
    - `knobs`: hyperparameters that are decided (default the learning rate).
    - `n_max`: rows for members, 2 to 64 (default 8).

    ## References
    Jaderberg et al. 2017 (arXiv 1711.09846); Zhang et al. 2019 (arXiv 1907.04164); Luo et al. 2025
    (arXiv 2503.12811).
    """  # noqa: E501

    def __init__(
        self,
        scenario: str = "unknown-edge",
        backend: str = "simpy",
        n_max: int = 8,
        knobs: tuple[str, ...] = ("learning_rate",),
        dense: bool = False,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        problem = make_problem("population", n_max=n_max, knobs=knobs, dense=dense)
        made = make_backend(problem, backend, scenario=scenario, num_envs=1, **arguments)
        super().__init__(problem, made, render_mode)


class PopulationVectorEnv(AllocationVectorEnv):
    """Many `PopulationEnv` at once on the batched twin; same arguments, plus ``autoreset_mode``."""

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str = "unknown-edge",
        backend: str = "twin",
        n_max: int = 8,
        knobs: tuple[str, ...] = ("learning_rate",),
        dense: bool = False,
        autoreset_mode: str = "same_step",
        **arguments: Any,
    ) -> None:
        problem = make_problem("population", n_max=n_max, knobs=knobs, dense=dense)
        made = make_backend(problem, backend, scenario=scenario, num_envs=num_envs, **arguments)
        super().__init__(problem, made, autoreset_mode)
