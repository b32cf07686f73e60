"""``allocgym/PRBSlicing-v0``: divide a cell's resource block groups among slices."""

from __future__ import annotations

from typing import Any

import numpy as np

from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv
from allocgym.envs.core.errors import AllocgymError

PROBLEM_ARGUMENTS = ("n_max", "actions", "observation", "reward", "move_penalty", "groups", "kappa")


def build(
    backend: str, scenario: str, num_envs: int, tractor_compat: bool, arguments: dict[str, Any]
) -> tuple[Any, Any]:
    """Problem and back end from an environment's arguments."""
    own = {k: arguments.pop(k) for k in PROBLEM_ARGUMENTS if k in arguments}
    if tractor_compat:
        fixed = {"actions": "moves", "observation": "tractor", "reward": "tractor"}
        clash = [k for k in fixed if own.get(k, fixed[k]) != fixed[k]]
        if clash:
            raise AllocgymError(
                f"tractor_compat: it fixes {clash[0]}={fixed[clash[0]]!r}, given {own[clash[0]]!r}"
            )
        own |= fixed
    if "slices" in arguments:
        own.setdefault("n_max", max(len(arguments["slices"]), 2))
    problem = make_problem("prb-slicing", **own)
    return problem, make_backend(
        problem, backend, scenario=scenario, num_envs=num_envs, **arguments
    )


class PRBSlicingEnv(AllocationEnv):
    """Divide a carrier's resource block groups among slices, a decision each 250 ms.

    ## Description
    A 10 MHz LTE cell has 50 resource blocks in 17 groups. Slices (eMBB, URLLC, mMTC; any number of
    each) own disjoint masks: what a slice does not use is not lent, unless ``borrow=True``. Users
    have queues of 190 kB, channels that vary, and recorded or generated traffic.

    ## Observation
    A `Dict`, the same numbers from a simulator and from a live data plane, clipped to [-10, 10]:

    | key | shape | meaning |
    |---|---|---|
    | `claimants` | `(n_max, 18)` float32 | one row per slice: what it could have used (of the carrier; log of its share x n; the same for average arrivals), arrivals last, on average and at their peak, what waits, granted over requested, share of its blocks used, late share, delay over target, log slack, CQI / 15, users / 10, last share x n, kind |
    | `context` | `(4,)` float32 | all needs and all average arrivals over the carrier, n / 8, log of the period over 250 ms |
    | `present` | `(n_max,)` int8 | 1 for slices, 0 for padding |

    With `observation="tractor"`: a `Box` of users / 10 of each slice and the groups of all but the
    last over all groups (five numbers for three slices), as in TRACTOR.

    ## Action
    - `actions="shares"` (default): `Box(-1, 1, (n_max,))`, share proportional to
      `exp(ln(100) a_j)` after one group each, largest-remainder rounding; 0 is the equal split.
    - `actions="moves"`: `Discrete(7)` for three slices: keep, or one group from one slice to
      another in TRACTOR's order; `action_masks()` says which are affordable, others keep.
    - `actions="splits"`: `Discrete(120)`, every split of 17 groups into three parts of at least 1.

    ## Reward
    A sum over periods (use gamma = 0.99). `reward="sla"` (default): eMBB's delivered share less
    prices times violations of URLLC's and mMTC's constraints; `"tractor"`: mean score over users
    as published; `"qos"`: the same without credit for idle users. `move_penalty` per moved group.

    ## Episode end
    Terminates after `horizon` periods (480: two minutes). Never truncates.

    ## Arguments
    - `scenario`: `"generated"` (default, works from the package alone), `"tractor"` and `"traces"`
      (need the recorded traces), `"3gpp"`, `"control"`; its fields can be overridden by keyword:
      `mix`, `load`, `slices`, `width`, `technology`, `schedulers`, `borrow`, `horizon`, ...
    - `backend`: `"simpy"` (packets and busy TTIs, default), `"twin"`, `"linux"` (real packets
      through this kernel's queues), `"scope"`, `"ric"`, `"replay"`.
    - `tractor_compat`: TRACTOR's own state, moves and score.

    ## References
    Groen et al. 2023, TRACTOR (arXiv 2312.07896); Bonati et al. 2021, SCOPE; Polese et al. 2022,
    ColO-RAN; 3GPP 36.213, 38.214.
    """  # noqa: E501

    def __init__(
        self,
        scenario: str = "generated",
        backend: str = "simpy",
        tractor_compat: bool = False,
        render_mode: str | None = None,
        **arguments: Any,
    ) -> None:
        problem, made = build(backend, scenario, 1, tractor_compat, arguments)
        super().__init__(problem, made, render_mode)

    def action_masks(self) -> np.ndarray:
        """``(actions,)`` bool: which discrete actions are legal now (sb3-contrib's name)."""
        problem: Any = self.problem
        masks: np.ndarray = problem.action_mask(self.memory)
        return masks[0]


class PRBSlicingVectorEnv(AllocationVectorEnv):
    """Many `PRBSlicingEnv` at once on the batched twin; same arguments, plus ``autoreset_mode``."""

    def __init__(
        self,
        num_envs: int = 1,
        scenario: str = "generated",
        backend: str = "twin",
        tractor_compat: bool = False,
        autoreset_mode: str = "same_step",
        **arguments: Any,
    ) -> None:
        problem, made = build(backend, scenario, num_envs, tractor_compat, arguments)
        super().__init__(problem, made, autoreset_mode)

    def action_masks(self) -> np.ndarray:
        """``(num_envs, actions)`` bool: which discrete actions are legal now."""
        problem: Any = self.problem
        masks: np.ndarray = problem.action_mask(self.memory)
        return masks
