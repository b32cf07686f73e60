"""``allocgym/CurveBudget-v0``: stop, wait or go on, over recorded learning curves."""

from __future__ import annotations

from typing import Any

from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class CurveBudgetEnv(AllocationEnv):
    """Which configurations to train on: early stopping as an environment.

    ## Description
    n configurations, each with a recorded curve of validation loss, and a budget that is enough for a
    few whole curves. Every period a few units (points of a curve) are divided over those that go on.

    ## Observation
    A `Dict`, clipped to [-10, 10]:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 9)` float32 | rank, z-score of the log of the lowest loss, its fall in the last two periods, distance to the best, share of the curve seen, untouched, alive, open |
    | `context` | `(5,)` float32 | budget left, log configurations, gain so far, distance to the target, periods |
    | `present` | `(n_max,)` int8 | 1 for configurations, 0 for padding |

    ## Action
    `MultiDiscrete`, per configuration: 0 stop for good, 1 wait, 2 go on. The period's units are divided
    evenly over those that go on (over all that are open where nobody does). Copying is refused.

    ## Reward
    At the end: log of the lowest first loss over the test loss of the configuration that measured best.

    ## Episode end
    Terminates when the budget is spent or no open curve has points left. Never truncates.

    ## Arguments
    - `scenario`: `"synthetic"` (default, from the package alone), `"taskset"` or `"algoperf"`
      (public data); fields can be overridden by keyword.
    - `n_max`: rows for configurations, 2 to 64 (default 16).

    ## References
    Metz et al. 2020 (TaskSet, arXiv 2002.11887); Dahl et al. 2023 (AlgoPerf, arXiv 2306.07179).
    """  # noqa: E501

    def __init__(
        self,
        scenario: str = "synthetic",
        backend: str = "replay",
        n_max: int = 16,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        problem = make_problem("curve-budget", n_max=n_max)
        made = make_backend(problem, backend, scenario=scenario, num_envs=1, **arguments)
        super().__init__(problem, made, render_mode)


class CurveBudgetVectorEnv(AllocationVectorEnv):
    """Many `CurveBudgetEnv` at once; same arguments, plus ``autoreset_mode``."""

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str = "synthetic",
        backend: str = "replay",
        n_max: int = 16,
        autoreset_mode: str = "same_step",
        **arguments: Any,
    ) -> None:
        problem = make_problem("curve-budget", n_max=n_max)
        made = make_backend(problem, backend, scenario=scenario, num_envs=num_envs, **arguments)
        super().__init__(problem, made, autoreset_mode)
