"""``allocgym/Population-v0``: divide training steps over members that may copy each other."""

from __future__ import annotations

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
    - `backend`: `"simpy"` (default), `"twin"`, `"real"` or `"ray"`.
    - `knobs`: hyperparameters that are decided (default the learning rate).
    - `n_max`: rows for members, 2 to 64 (default 8, or as many as the scenario has); `dense`.

    ## References
    Jaderberg et al. 2017 (arXiv 1711.09846); Zhang et al. 2019 (arXiv 1907.04164); Luo et al. 2025
    (arXiv 2503.12811).
    """  # noqa: E501

    problem_id = "population"


class PopulationVectorEnv(AllocationVectorEnv):
    """Many `PopulationEnv` at once on the batched twin; same arguments, plus ``autoreset_mode``."""

    problem_id = "population"
