"""``allocgym/PRBSlicing-v0``: divide a cell's resource block groups among slices."""

from __future__ import annotations

from allocgym.envs.core.environment import AllocationEnv, AllocationVectorEnv


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
      another in TRACTOR's order; `action_masks()` says which are affordable. A move that a slice
      cannot afford keeps the split; with `strict=True` it raises.
    - `actions="splits"`: `Discrete(120)`, every split of 17 groups into three parts of at least 1.

    Numbers outside the box are clipped to it; NaN, infinities or a wrong shape raise `AllocgymError`.

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
    - `n_max`: rows for slices, 2 to 16 (default: as many as the scenario has); `kappa`,
      `move_penalty`, `strict`.

    ## References
    Groen et al. 2023, TRACTOR (arXiv 2312.07896); Bonati et al. 2021, SCOPE; Polese et al. 2022,
    ColO-RAN; 3GPP 36.213, 38.214.
    """  # noqa: E501

    problem_id = "prb-slicing"


class PRBSlicingVectorEnv(AllocationVectorEnv):
    """Many `PRBSlicingEnv` at once on the batched twin; same arguments, plus ``autoreset_mode``."""

    problem_id = "prb-slicing"
