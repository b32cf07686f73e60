"""Rules for whole activation plans: those people use, torch's knapsack, a search, a trained policy."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.activation_plan.problem import ActivationMemory, ActivationPlan
from allocgym.envs.activation_plan.profile import (
    KEEP,
    OFFLOAD,
    RECOMPUTE,
    Profile,
    legal_actions,
    span,
    timeline,
)
from allocgym.envs.core.errors import missing_extra

PRETRAINED = Path(__file__).parent / "pretrained" / "learned.zip"


def _fits(profile: Profile, action: np.ndarray) -> bool:
    return bool(timeline(profile, action[None])[1][0] <= profile.budget[0])


def keep_all(profile: Profile) -> np.ndarray:
    """Everything kept, whatever the budget."""
    return np.zeros(profile.size.shape[1], np.int64)


def recompute_all(profile: Profile) -> np.ndarray:
    """Everything recomputed."""
    return np.full(profile.size.shape[1], RECOMPUTE)


def offload_all(profile: Profile) -> np.ndarray:
    """Everything offloaded, needed or not."""
    return np.full(profile.size.shape[1], OFFLOAD)


def cheapest_recompute(profile: Profile) -> np.ndarray:
    """Recompute what costs least per byte freed, until the physical peak fits."""
    action = keep_all(profile)
    freed = profile.size[0] - profile.left_recompute[0]
    cost = np.where(profile.present[0], profile.recompute[0] / np.maximum(freed, 1), np.inf)
    for i in np.argsort(cost, kind="stable"):
        if _fits(profile, action) or not profile.present[0, i]:
            break
        action[i] = RECOMPUTE
    return action


def torch_knapsack(profile: Profile, solver: str = "dp") -> np.ndarray:
    """PyTorch's knapsack rules: save what costs most to recompute within a sum of sizes.

    The solvers are torch's own (``torch._functorch._activation_checkpointing.knapsack``). They know
    sizes, not lifetimes: the sum allowed is the same fraction of the sizes as the budget is of the
    peak's span.

    Args:
        profile: training step and budget, one row.
        solver: ``"dp"``, ``"greedy"`` or ``"ilp"``.
    """
    try:
        from torch._functorch._activation_checkpointing import knapsack
    except ImportError as error:
        raise missing_extra("torch", "real") from error
    low, high = span(profile)
    share = float(np.clip((profile.budget - low) / (high - low), 0, 1)[0])
    mine = np.flatnonzero(profile.present[0])
    sizes = profile.size[0, mine] - profile.left_recompute[0, mine]
    memory = (sizes / sizes.sum()).tolist()
    runtimes = profile.recompute[0, mine].tolist()
    _, saved, _ = getattr(knapsack, f"{solver}_knapsack")(memory, runtimes, share)
    action = recompute_all(profile)
    action[mine[list(saved)]] = KEEP
    return action


def learned(profile: Profile, policy: Any = None) -> np.ndarray:
    """What a trained policy decides, group by group (default: the shipped one)."""
    rows, n = profile.size.shape
    problem = ActivationPlan(n_max=n)
    policy = policy or _shipped()
    action = np.zeros((rows, n), np.int64)
    keep, _ = timeline(profile, action)
    for i in range(int(profile.present.sum(1).max())):
        step = np.full(rows, i)
        seconds, peak = timeline(profile, action)
        legal = legal_actions(profile, action, step)
        memory = ActivationMemory(
            action, step, peak, (keep - seconds) / keep, legal, np.zeros(rows, bool), profile
        )
        action[:, i] = policy.predict(problem.encode(memory))[0]
    return action[0]


@functools.cache
def _shipped() -> Any:
    from allocgym.agents.core import segment_policy as segments

    return segments.load(PRETRAINED, ActivationPlan())


def choose_saved(
    memory: list[float], times: list[float], allowed: float, policy: Any = None
) -> tuple[list[int], list[int]]:
    """Decide for ``torch.compile``'s partitioner as for a training step (default: the shipped policy).

    The partitioner's items become groups that hold nothing once recomputed and cannot be moved
    anywhere in useful time; its limit on the sum of what is saved becomes the budget.

    Args:
        memory: share of each item in what could be saved.
        times: seconds to recompute each.
        allowed: largest sum of shares saved.
        policy: of activation plans.

    Returns:
        Indices to save and to offload, for ``PriorityKnapsack(choose=...)``.
    """
    n = len(memory)
    if not n:
        return [], []
    size, seconds = 1e9 * np.array([memory]), np.array([times])
    nothing, one = np.zeros((1, n)), np.ones(1)
    action = learned(
        Profile(
            size=size,
            left_recompute=nothing,
            left_offload=size,
            work=np.stack([size, nothing, size], -1),
            forward=seconds,
            backward=2 * seconds,
            recompute=seconds,
            base=0 * one,
            head=0 * one,
            rate=one,
            overlap=one < 0,
            budget=1e9 * allowed * one,
            present=np.ones((1, n), bool),
        ),
        policy,
    )
    return np.flatnonzero(action == KEEP).tolist(), np.flatnonzero(action == OFFLOAD).tolist()


def best_of(profile: Profile) -> np.ndarray:
    """The better of the trained policy and the rules that keep the budget: never worse than those."""
    found = [
        learned(profile),
        *(rule(profile) for rule in (keep_all, recompute_all, cheapest_recompute)),
    ]
    return found[int(np.argmin(_score(profile, np.array(found))))]


def plan_search(profile: Profile, evaluations: int = 6000, seed: int = 0) -> np.ndarray:
    """Search plans on the exact timeline, a population at a time.

    Starts from every rule above, then mutates the best plans (one to three groups changed, or two
    swapped); a plan over the budget never survives one within it. Recomputing everything is in the first
    population, so that a plan within the budget is found wherever one is known to exist.
    """
    rng = np.random.default_rng(seed)
    n = int(profile.present[0].sum())
    starts = [
        keep_all(profile),
        recompute_all(profile),
        offload_all(profile),
        cheapest_recompute(profile),
    ]
    for first, second in (
        (OFFLOAD, RECOMPUTE),
        (RECOMPUTE, OFFLOAD),
        (KEEP, RECOMPUTE),
        (RECOMPUTE, KEEP),
        (OFFLOAD, KEEP),
        (KEEP, OFFLOAD),
    ):
        for cut in range(1, n, max(n // 8, 1)):
            a = keep_all(profile)
            a[:cut], a[cut:] = first, second
            starts.append(a)
    pool = np.array(starts)
    score = _score(profile, pool)
    tried = len(pool)
    while tried < evaluations:
        elite = pool[np.argsort(score, kind="stable")[:24]]
        children = elite[rng.integers(len(elite), size=200)].copy()
        for child in children:
            i, j = rng.integers(n, size=2)
            if rng.random() < 0.4:
                child[i], child[j] = child[j], child[i]
            else:
                for k in rng.integers(n, size=rng.integers(1, 4)):
                    child[k] = rng.integers(3)
        marks = _score(profile, children)
        tried += len(children)
        pool, score = (
            np.concatenate([elite, children]),
            np.concatenate([np.sort(score, kind="stable")[: len(elite)], marks]),
        )
    best: np.ndarray = pool[int(np.argmin(score))]
    return best


def _score(profile: Profile, actions: np.ndarray) -> np.ndarray:
    many = profile.rows(np.zeros(len(actions), np.int64))
    seconds, peak = timeline(many, actions)
    whole = seconds.max() * 10 + 1
    over = np.maximum(peak / profile.budget[0] - 1, 0)
    result: np.ndarray = np.where(over > 0, whole * (1 + over), seconds)
    return result


RULES: dict[str, Callable[[Profile], np.ndarray]] = {
    "keep-all": keep_all,
    "recompute-all": recompute_all,
    "offload-all": offload_all,
    "cheapest-recompute": cheapest_recompute,
    "torch-dp": torch_knapsack,
    "torch-greedy": functools.partial(torch_knapsack, solver="greedy"),
    "torch-ilp": functools.partial(torch_knapsack, solver="ilp"),
    "learned": learned,
    "best-of": best_of,
    "plan-search": plan_search,
}


def tighten(profile: Profile, margin: float) -> Profile:
    """The same step with the budget lowered by a margin (for the error of a fitted peak)."""
    return dataclasses.replace(profile, budget=profile.budget * (1 - margin))
