"""``allocgym/MemoryMapping-v0``: which tensors live in fast memory, when."""

from __future__ import annotations

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


class MemoryMappingEnv(AllocationEnv):
    """Decide for each use of a tensor whether it reads fast or slow memory.

    ## Description
    An accelerator runs a straight-line program. Operands come from a large slow memory or a small
    fast one. A step is one *use segment* (from a tensor's birth or last use to its next use), in
    program order. The environment finds the granules (first fit in 64) and the copy's time (as late
    as bandwidth left idle hides it). Time is exact: op `t` takes
    `max(comp, (slow + copied bytes) / Bs + fast bytes / Bf)`. With `order=True` a step chooses the
    next tensor instead, and the environment places all its segments greedily: every greedy
    allocator is a policy of that game.

    ## Observation
    A `Dict`:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 12)` float32 | current and coming segments (order game: tensors left): granules (share of memory x 4), log distance, time the use alone would save (over the mean segment's share of the all-slow time), parameter, first use, in fast memory now, idle bandwidth of the window over size (at most 2), uses to come; of the current segment also: stay and copy legal, time either saves |
    | `context` | `(36,)` float32 | progress, fraction saved, log segments, position; for 16 ops from the window's start: free share of fast memory, idle bandwidth |
    | `present` | `(n_max,)` int8 | 1 for rows, 0 for padding |
    | `action_mask` | `(3,)` or `(n_max,)` int8 | legal actions, also `action_masks()` |

    ## Action
    `Discrete(3)`: 0 drop (slow memory; always legal), 1 stay (born in fast memory, or still there), 2
    copy (fetched since the event before). `order=True`: `Discrete(n_max)`, a tensor. An illegal
    action is a drop (`order=True`: the first tensor left); with `strict=True` it raises
    `AllocgymError`.

    ## Reward
    Time saved by the choice over the all-slow time; the undiscounted return is the fraction saved.
    A drop can cost: what was born in fast memory is then written back.

    ## Episode end
    Terminates when every segment (or tensor) is decided. Never truncates.

    ## Arguments
    - `scenario`: `"train"` (default), `"test"`, the controls `"compute-bound"`, `"ample"`, or
      `"trace"` with `trace=FILE` (the file's path alone, ending in `.json`, does too).
    - `backend`: `"simpy"` (default) or `"twin"`.
    - `order`; `n_max`: rows, 1 to 4,096 (default 8; with `order=True` 256, or as many as a recorded
      program has tensors); `strict`.
    - `programs` (bundled ones, such as `["gpt-256-2-256"]`), `fractions` (capacities over the program's
      peak, 0.001 to 1,000), `compute` (FLOP/s, 1e6 to 1e24).

    ## References
    Optimizing Memory Mapping Using Deep RL (arXiv 2305.07440, abstract); XLA memory-space assignment
    (openxla/xla, `cost_analysis.cc`, `prefetch_interval_picker.cc`).
    """  # noqa: E501

    problem_id = "memory-mapping"


class MemoryMappingVectorEnv(AllocationVectorEnv):
    """Many `MemoryMappingEnv` at once on the twin; same arguments, plus ``autoreset_mode``."""

    problem_id = "memory-mapping"
