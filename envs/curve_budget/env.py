"""``allocgym/CurveBudget-v0``: stop, wait or go on, over recorded learning curves."""

from __future__ import annotations

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
    - `n_max`: rows for configurations, 2 to 64 (default 16, or as many as the scenario has).

    ## References
    Metz et al. 2020 (TaskSet, arXiv 2002.11887); Dahl et al. 2023 (AlgoPerf, arXiv 2306.07179).
    """  # noqa: E501

    problem_id = "curve-budget"


class CurveBudgetVectorEnv(AllocationVectorEnv):
    """Many `CurveBudgetEnv` at once; same arguments, plus ``autoreset_mode``."""

    problem_id = "curve-budget"
