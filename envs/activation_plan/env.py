"""``allocgym/ActivationPlan-v0``: keep, recompute or offload activations under a peak."""

from __future__ import annotations

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class ActivationPlanEnv(AllocationEnv):
    """Decide for each activation group whether it is kept, recomputed or offloaded.

    ## Description
    A training step saves activations in the forward pass for the backward pass. Groups (operator
    class x block) come in forward order. The physical peak, not a sum of sizes, has to stay within
    a budget: what is on its way out, what is being fetched and the work space of the group's own
    backward pass all count.

    ## Observation
    A `Dict`:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 8)` float32 | per group: size, bytes left when recomputed, when offloaded, recompute time, transfer time, work space (each x 10, over the budget or the step's time), decided, current |
    | `context` | `(5,)` float32 | progress, minus added time, peak over budget, overlap, base over budget |
    | `present` | `(n_max,)` int8 | 1 for groups, 0 for padding |
    | `action_mask` | `(3,)` int8 | legal actions, also `action_masks()` |

    ## Action
    `Discrete(3)`: 0 keep, 1 recompute, 2 offload. Legal is what leaves a plan within the budget. Where
    an action is illegal the group is recomputed; with `strict=True` it raises `AllocgymError`.

    ## Reward
    Minus the time the choice adds, over the keep-all time.

    ## Episode end
    Terminates when every group is decided. Never truncates.

    ## Arguments
    - `scenario`: `"gpt-gpu"` (default; analytic, transfers overlap), `"gpt-gpu-test"` (other shapes),
      `"mixed"` (what agents are trained on: also slow and fast links, and transfers that stop the
      computation) or `"recorded"` (profiles of the models that the real back end runs).
    - `backend`: `"simpy"` (default), `"twin"` or `"torch"` (executes the plan when it is whole).
    - `budget` (0 to 1 between recompute-all and keep-all; in simulation drawn per episode where it is
      not given), `n_max`: rows, 1 to 512 (default 32), `strict`.
    - simulated: `steps` (such as `["1024-6-1024-8"]`: width, blocks, tokens, sequences), `links` (bytes a
      second, 1e6 to 1e15), `overlap`.
    - `"torch"`: the scenario is a model (`"gpt-narrow"`, `"gpt-wide"`, `"gpt-long"`, `"gpt2-124m"`);
      `profile`, `device`, `repeats`, `rate`.

    ## References
    Checkmate (arXiv 1910.02653); PyTorch's activation memory budget (torch 2.13,
    `torch/_functorch/partitioners.py`).
    """  # noqa: E501

    problem_id = "activation-plan"


class ActivationPlanVectorEnv(AllocationVectorEnv):
    """Many `ActivationPlanEnv` at once on the twin; same arguments, plus ``autoreset_mode``."""

    problem_id = "activation-plan"
