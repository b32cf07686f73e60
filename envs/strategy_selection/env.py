"""``allocgym/StrategySelection-v0``: one strategy per node under time-varying memory."""

from __future__ import annotations

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class StrategySelectionEnv(AllocationEnv):
    """Choose how each operator of a program is sharded, within a memory limit.

    ## Description
    Every node (operator) has a few strategies, each with a cost and a usage of memory while the node is
    alive; every edge has a cost for each pair of strategies, some of which are forbidden. A step
    decides one node, in program order. The sum of all costs is to be small, the usage within the limit
    at every time.

    ## Observation
    A `Dict`:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 6)` float32 | per strategy of the node at hand: its cost, the cost of edges to decided neighbours, the least cost that undecided neighbours leave (decimal logarithms of 1 + cost), usage over the limit (x 4), the peak over the limit with it and everything later at its least, legal |
    | `context` | `(4,)` float32 | progress, objective so far / 4, log number of nodes, any strategy legal |
    | `present` | `(n_max,)` int8 | 1 for strategies, 0 for padding |
    | `action_mask` | `(n_max,)` int8 | legal actions, also `action_masks()` |

    ## Action
    `Discrete(n_max)`: a strategy. Legal is what no decided neighbour forbids, leaves every undecided
    neighbour a strategy, and keeps the memory possible. Where nothing is legal, everything is, and
    the episode ends with the penalty. An illegal action becomes the first legal one; with
    `strict=True` it raises `AllocgymError`.

    ## Reward
    Change of minus the decimal logarithm of 1 + cost; 10 less once something not allowed was chosen.
    The undiscounted return is the objective at the end.

    ## Episode end
    Terminates when every node is decided. Never truncates.

    ## Arguments
    - `scenario`: `"train"` (default) and `"test"` (generated, 24 and 60 nodes), the control `"level"`
      (every choice costs the same), or `"iopddl"` (the contest's B and G, or `instance="V"`; with
      `n_max` of 178 or more V is drawn too).
    - `backend`: `"twin"` (the exact evaluator; there is nothing to simulate beside it).
    - `n_max`: rows, 1 to 1,024 (default 48, or 178 for V); `strict`; `nodes` of generated networks, 1 to
      4,096.

    ## References
    ASPLOS/EuroSys 2025 contest on intra-operator parallelism (google/iopddl); Alpa (arXiv 2201.12023).
    """  # noqa: E501

    problem_id = "strategy-selection"


class StrategySelectionVectorEnv(AllocationVectorEnv):
    """Many `StrategySelectionEnv` at once; same arguments, plus ``autoreset_mode``."""

    problem_id = "strategy-selection"
