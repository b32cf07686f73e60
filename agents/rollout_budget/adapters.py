"""Allocators inside verl and TRL: index arithmetic on their batches, no import of either.

verl (commit b178a3c) groups advantages by ``uid``, so uneven counts are safe; what blocks them is
``gen_batch.repeat(rollout.n)`` in ``RayPPOTrainer.fit`` and divisibility by the number of workers.
TRL (commit f2cd577) reshapes rewards to ``(-1, num_generations)``: only whole groups of one size work.
slime (624b824) silently averages uneven groups over the batch: give it whole groups too.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from allocgym.agents.rollout_budget.allocator import Context, RolloutAllocator
from allocgym.envs.core.errors import AllocgymError


@dataclasses.dataclass
class VerlPlan:
    """How to repeat a verl batch.

    Attributes:
        index: ``(total,)`` rows of the prompt batch: replace both ``repeat`` calls by
            ``batch.select_idxs(index)``.
        counts: ``(m,)`` rollouts of each prompt.
        topped_up: rollouts added so that ``total`` divides by the number of workers.
    """

    index: np.ndarray
    counts: np.ndarray
    topped_up: int


class VerlAdapter:
    """For a trainer that subclasses verl's ``RayPPOTrainer``.

    Args:
        allocator: decides counts.
        world_size: data-parallel workers; the total is topped up to a multiple of it by one more
            rollout for the prompts with the most (those cost little in relative terms).
        key: where in ``non_tensor_batch`` the dataset index stands: ``extra_info[i]["index"]`` by
            default. Never the per-step ``uid``: it is a fresh uuid at every step.
    """

    def __init__(
        self, allocator: RolloutAllocator, world_size: int = 1, key: str = "extra_info"
    ) -> None:
        if world_size < 1:
            raise AllocgymError(f"world_size: an integer >= 1 expected, given {world_size}")
        self.allocator, self.world_size, self.key = allocator, world_size, key

    def ids(self, non_tensor_batch: Mapping[str, Any]) -> np.ndarray:
        """Dataset indices of a prompt batch.

        Raises:
            AllocgymError: the batch has none.
        """
        if self.key not in non_tensor_batch:
            raise AllocgymError(
                f"batch: no {self.key!r} in non_tensor_batch; the dataset index is needed "
                "(the per-step uid is new at every step)"
            )
        entries = non_tensor_batch[self.key]
        first = entries[0]
        if isinstance(first, Mapping):
            if any("index" not in e for e in entries):
                raise AllocgymError(f"batch: {self.key!r} without 'index'")
            return np.array([int(e["index"]) for e in entries])
        return np.array([int(e) for e in entries])

    def plan(
        self, non_tensor_batch: Mapping[str, Any], budget: int, ctx: Context | None = None
    ) -> VerlPlan:
        """Decide counts for a prompt batch."""
        counts = self.allocator.allocate(self.ids(non_tensor_batch), budget, ctx).copy()
        missing = -int(counts.sum()) % self.world_size
        order = np.argsort(-counts, kind="stable")
        for j in range(missing):
            counts[order[j % len(order)]] += 1
        return VerlPlan(np.repeat(np.arange(len(counts)), counts), counts, missing)

    def observe(
        self,
        non_tensor_batch: Mapping[str, Any],
        plan: VerlPlan,
        rewards: np.ndarray,
        response_lengths: np.ndarray | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Report a generated batch, rows in the order of ``plan.index``.

        Args:
            non_tensor_batch: of the prompt batch.
            plan: what `plan` returned.
            rewards: ``(total,)`` sequence rewards; above ``threshold`` counts as a success, NaN as not
                tried.
            response_lengths: ``(total,)`` tokens.
            threshold: of success.
        """
        rewards = np.asarray(rewards, float)
        if rewards.shape != plan.index.shape:
            raise AllocgymError(
                f"rewards: {len(plan.index)} expected, one a rollout, given {rewards.shape}"
            )
        m = len(plan.counts)
        tried = np.bincount(plan.index, _judged(rewards), m)
        right = np.bincount(plan.index, rewards > threshold, m)
        tokens = (
            None
            if response_lengths is None
            else np.bincount(plan.index, np.asarray(response_lengths, float), m)
        )
        self.allocator.observe(self.ids(non_tensor_batch), tried, right, tokens)


class TRLAdapter:
    """For TRL's ``GRPOTrainer``: whole groups of ``num_generations``.

    A prompt gets 0, 1, 2, ... groups; with more than one it stands in the batch as several groups,
    each with its own baseline. What that costs: counts are coarse (nothing between 0 and G), and the
    baseline of a prompt with k groups uses G samples instead of kG; `baseline_noise` says how much.

    Args:
        allocator: decides counts; its ``multiple`` must be ``num_generations``.
        num_generations: G of the trainer.
    """

    def __init__(self, allocator: RolloutAllocator, num_generations: int) -> None:
        multiple = getattr(allocator, "multiple", num_generations)
        if num_generations < 2 or multiple != num_generations:
            raise AllocgymError(
                f"num_generations: >= 2 and equal to the allocator's multiple ({multiple}) "
                f"expected, given {num_generations}"
            )
        self.allocator, self.group = allocator, num_generations

    def order(
        self, ids: Sequence[int], budget: int, ctx: Context | None = None
    ) -> tuple[list[int], np.ndarray]:
        """Decide the order of dataset indices for the trainer's sampler.

        Args:
            ids: dataset indices offered.
            budget: rollouts in all, a multiple of G.
            ctx: of the update.

        Returns:
            The indices to feed (each repeated G times per group, groups adjacent, as
            ``RepeatSampler`` yields them), and the counts.
        """
        counts = self.allocator.allocate(np.asarray(ids), budget, ctx)
        fed: list[int] = []
        for i, n in zip(ids, counts, strict=True):
            fed += [int(i)] * int(n)
        return fed, counts

    def observe(
        self,
        fed: Sequence[int],
        rewards: np.ndarray,
        lengths: np.ndarray | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Report a batch in the order it was fed; a NaN reward counts as not tried."""
        rewards = np.asarray(rewards, float)
        if len(rewards) != len(fed) or len(fed) % self.group:
            raise AllocgymError(
                f"rewards: {len(fed)} expected, a multiple of {self.group}, given {len(rewards)}"
            )
        ids, inverse = np.unique(np.asarray(fed), return_inverse=True)
        n = np.bincount(inverse, _judged(rewards))
        right = np.bincount(inverse, rewards > threshold)
        tokens = None if lengths is None else np.bincount(inverse, np.asarray(lengths, float))
        self.allocator.observe(ids, n, right, tokens)

    def baseline_noise(self, groups: int) -> float:
        """Variance of a baseline from one group over that from all ``groups``: their number."""
        return float(groups)


def _judged(rewards: np.ndarray) -> np.ndarray:
    """Which rollouts have a reward; those without are reported."""
    known = ~np.isnan(rewards)
    if not known.all():
        warnings.warn(
            f"rewards: {int((~known).sum())} of {len(rewards)} are no numbers; ignored",
            stacklevel=3,
        )
    return known
