"""``allocgym/DataMixing-v0``: divide training tokens over data domains."""

from __future__ import annotations

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class DataMixingEnv(AllocationEnv):
    """Divide each period's training tokens over data domains.

    ## Description
    A language model trains for a fixed number of tokens. Every period (a few optimiser steps) the
    agent sets the mixture the next tokens are drawn from. What is learned of a domain fades while
    others are trained, small domains run out and repeat, new domains disturb old ones.

    ## Observation
    A `Dict`, the same numbers from a simulator and from a real run, clipped to [-10, 10]:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 14)` float32 | one row per domain: loss relative to start, slopes, slack to its own lowest, loss relative to the mean of domains, first-period drop, last and cumulative share x K, log(prior x K), log(weight x K), is source, constraint slack, fraction of its limit used, epochs seen |
    | `context` | `(9,)` float32 | progress (0 where the horizon is hidden), hidden horizon, learning rate now and left, log K, log effort, noise, worst-domain objective, constrained |
    | `present` | `(n_max,)` int8 | 1 for domains, 0 for padding |

    ## Action
    `Box(-1, 1, (n_max,))`: `share_j` is proportional to `prior_j * exp(kappa * a_j)` with
    `kappa = ln 100`, so 0 is the natural mixture; then floors, limits and rounding to whole
    sequences. Numbers outside the box are clipped to it; NaN, infinities or a wrong shape raise
    `AllocgymError`.

    ## Reward
    The fall of the objective over the period, in loss units (bits per byte on real runs), less
    `penalty` times the growth of the constraint's violation. Potential-based with gamma = 1: the
    undiscounted return is the fall of the objective over the episode.

    ## Episode end
    Terminates when the budget is spent, after `horizon` periods. Never truncates.

    ## Arguments
    - `scenario`: `"scratch"`, `"continual-pretraining"` (default), `"low-resource"`, `"skills"`,
      `"static-control"` (in simulation only); fields of the scenario can be overridden by keyword.
    - `fit`: file of a law fitted to a table of runs (in simulation only); replaces the scenario by
      that table's domains.
    - `backend`: `"simpy"` (default), `"twin"` or `"real"`.
    - `n_max`: rows for domains, 2 to 128 (default 8, or as many as the scenario has); `kappa`.

    ## References
    Shukor et al. 2025 (arXiv 2507.09404); Muennighoff et al. 2023; RegMix (Liu et al. 2024);
    Ibrahim et al. 2024.
    """  # noqa: E501

    problem_id = "data-mixing"


class DataMixingVectorEnv(AllocationVectorEnv):
    """Many `DataMixingEnv` at once on the batched twin; same arguments, plus ``autoreset_mode``."""

    problem_id = "data-mixing"
