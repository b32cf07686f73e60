"""``allocgym/RolloutBudget-v0``: divide rollouts over prompts."""

from __future__ import annotations

from typing import Any

from allocgym.envs.core.builder import make_backend, make_problem
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

    Then whole rollouts within `low` and `high` a prompt, multiples of `multiple`, total exact. NaN,
    infinities or a wrong shape raise `AllocgymError`.

    ## Reward
    The rise of held-out accuracy less `price` times the tokens of the update over those of a mean
    update. Never a gradient ratio: both definitions are in the observation and `info` only.

    ## Episode end
    Terminates after `horizon` updates (of `rounds` periods each). Never truncates.

    ## Arguments
    - `scenario`: `"qwen1.5b-dsr"` (default), `"hard-tail"`, `"hetero-cost"`, `"prereq"`, `"tiny"`,
      `"homogeneous"` (the control); fields can be overridden by keyword. Variants: `rounds=4` (ask
      again after each round), `max_tokens=..., length_decay=...` (a budget in tokens with a length
      schedule), `three_way=True` (0 units: skip, 1: train on the demonstration, more: RL),
      `search="best-of-n"` or `"tree"` (nothing is trained: the share of prompts solved).
    - `backend`: `"simpy"` (default), `"twin"` or `"real"`.
    - `mode`, `n_max` (rows; default 10).

    ## References
    Knapsack RL (arXiv 2509.25849); CurES (2510.01037); VIP (2602.01601); MoPPS (2507.04632);
    Reinforce-Ada (2510.04996); Train Long, Think Short; HPT.
    """  # noqa: E501

    def __init__(
        self,
        scenario: str = "qwen1.5b-dsr",
        backend: str = "simpy",
        mode: str = "bins",
        n_max: int = 10,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        problem = make_problem("rollout-budget", n_max=n_max, mode=mode)
        made = make_backend(problem, backend, scenario=scenario, num_envs=1, **arguments)
        super().__init__(problem, made, render_mode)

    def step(self, action: Any) -> Any:
        """Spend one period's rollouts as ``action`` says; both gradient ratios stand in ``info``."""
        observation, reward, done, truncated, info = super().step(action)
        outcome: Any = self.outcome
        info["rollout_ratio"] = float(outcome.rollout_ratio[0])
        info["prompt_ratio"] = float(outcome.prompt_ratio[0])
        info["heldout"] = float(outcome.heldout[0])
        return observation, reward, done, truncated, info


class RolloutBudgetVectorEnv(AllocationVectorEnv):
    """Many `RolloutBudgetEnv` at once on the twin; same arguments, plus ``autoreset_mode``."""

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str = "qwen1.5b-dsr",
        backend: str = "twin",
        mode: str = "bins",
        n_max: int = 10,
        autoreset_mode: str = "same_step",
        **arguments: Any,
    ) -> None:
        problem = make_problem("rollout-budget", n_max=n_max, mode=mode)
        made = make_backend(problem, backend, scenario=scenario, num_envs=num_envs, **arguments)
        super().__init__(problem, made, autoreset_mode)
