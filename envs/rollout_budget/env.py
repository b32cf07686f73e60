"""``allocgym/RolloutBudget-v0``: divide rollouts over prompts."""

from __future__ import annotations

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class RolloutBudgetEnv(AllocationEnv):
    """Divide the rollouts of each policy update over prompts.

    ## Description
    A language model is trained by reinforcement learning with verifiable rewards. At every update
    some prompts are offered; the agent says how many rollouts each (or each bin of alike prompts)
    gets. A group without both a success and a failure teaches nothing. What is learned raises a
    shared ability and the family's own; the episode's score is held-out accuracy.

    ## Observation
    A `Dict`, the same numbers from a simulator and from a real run, clipped to [-10, 10]:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 12)` float32 | one row per bin or prompt: posterior mean and sd (x 4) of the success rate, log cost in tokens relative to the mean, updates since the last visit (/ 10), recent share of mixed groups, 2 sqrt(p(1-p)), held-out accuracy of the family and relative to all, rollouts and success rate of this update so far, visits, share of prompts |
    | `context` | `(9,)` float32 | progress, budget left, both gradient ratios of the last update, held-out accuracy and its slope, round of the update, log group size, log rows |
    | `present` | `(n_max,)` int8 | 1 for rows, 0 for padding |

    ## Action
    - `mode="bins"` (default) and `"per_prompt"`: `Box(-1, 1, (n_max,))`; a row's share is
      proportional to its prompts times `exp(kappa a)`, `kappa = ln 100`.
    - `mode="index"`: `Box(-1, 1, (5,))`: exponents a, b, c, d (times 3) of
      `p^a (1-p)^b u^c / cost^d` and a floor (share spread evenly, -1 is 0 and 1 is all), for any
      number of rows and any trainer. `u` is the posterior sd.

    Then whole rollouts within `low` and `high` a prompt, multiples of `multiple`, total exact. Numbers
    outside the box are clipped to it; NaN, infinities or a wrong shape raise `AllocgymError`.

    ## Reward
    The rise of held-out accuracy less `price` times the tokens of the update over those of a mean
    update. Never a gradient ratio: both definitions are in the observation and `info["scores"]` only.

    ## Episode end
    Terminates after `horizon` updates (of `rounds` periods each). Never truncates.

    ## Arguments
    - `scenario`: `"qwen1.5b-dsr"` (default), `"hard-tail"`, `"hetero-cost"`, `"prereq"`, `"tiny"`,
      `"homogeneous"` (the control); fields can be overridden by keyword. Variants: `rounds=4` (ask
      again after each round), `max_tokens=..., length_decay=...` (a budget in tokens with a length
      schedule), `three_way=True` (0 units: skip, 1: train on the demonstration, more: RL),
      `search="best-of-n"` or `"tree"` (nothing is trained: the share of prompts solved).
    - `backend`: `"simpy"` (default), `"twin"` or `"real"` (its scenarios are `"easy"`, `"hard-tail"`,
      `"mixed-cost"` and `"reasoning"`; there rows are prompts by default).
    - `mode`, `n_max` (rows; default 10), `kappa`, `temperature` (of the index).

    ## References
    Knapsack RL (arXiv 2509.25849); CurES (2510.01037); VIP (2602.01601); MoPPS (2507.04632);
    Reinforce-Ada (2510.04996); Train Long, Think Short; HPT.
    """  # noqa: E501

    problem_id = "rollout-budget"


class RolloutBudgetVectorEnv(AllocationVectorEnv):
    """Many `RolloutBudgetEnv` at once on the twin; same arguments, plus ``autoreset_mode``."""

    problem_id = "rollout-budget"
