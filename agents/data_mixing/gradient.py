"""Training by gradients through the simulator: the law is differentiable, so use it.

The policy is rolled out on fresh random instances each iteration, with measurement noise, and the
final objective is differentiated through the law and through the policy's own observations. On this
problem it reaches in seconds what evolution and policy gradients do not in minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.learning import held, restore
from allocgym.agents.core.networks import SetPolicy
from allocgym.agents.data_mixing.oracles import within_limits
from allocgym.envs.core import budget
from allocgym.envs.core.arrays import columns
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.data_mixing.observation import CONTEXT_FEATURES, ROW_FEATURES
from allocgym.envs.data_mixing.problem import DataMixing, objective
from allocgym.envs.data_mixing.records import MixingOutcome


def new_policy(problem: DataMixing, hidden: int = 48, recurrent: bool = True) -> SetPolicy:
    """Build a policy that starts out mixing in proportion to the objective's weights."""
    prior = ROW_FEATURES.index("log prior x K")
    weight = ROW_FEATURES.index("log weight x K")
    return SetPolicy(
        len(ROW_FEATURES),
        len(CONTEXT_FEATURES),
        hidden,
        recurrent,
        skip={prior: -1 / problem.kappa, weight: 1 / problem.kappa},
    )


def train(
    problem: DataMixing,
    backend: Any,
    iterations: int = 300,
    lr: float = 3e-3,
    seed: int = 0,
    hidden: int = 48,
    recurrent: bool = True,
    steadiness: float = 0.0,
    progress: Callable[[int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[SetPolicy, dict[str, Any]]:
    """Train a policy on instances drawn from a simulator.

    Args:
        problem: what is decided.
        backend: a batched simulator with ``dynamics`` (the twin).
        iterations: optimiser steps, each on a fresh batch of instances.
        lr: peak learning rate of Adam, with cosine decay.
        seed: of the weights, the instances and the noise.
        hidden: width of the policy.
        recurrent: give it a state per claimant.
        steadiness: objective points a change of mixture costs in training, >= 0: this much for each
            unit of ``sum_j (share_j - share_j before)^2``, summed over the episode. What a simulator
            promises for timing holds less well on real runs than what it says of the mixture.
        progress: called with (iteration, mean fall of the objective).
        checkpoint: where it goes on from, bit for bit, and keeps where it stands.

    Returns:
        The policy, and what should be recorded of the training.

    Raises:
        AllocgymError: a negative ``steadiness``; or the objective overflowed: the instances are too
            extreme (a smaller ``jitter`` of the scenario helps).
    """
    if not isinstance(steadiness, (int, float)) or not steadiness >= 0:
        raise AllocgymError(f"steadiness: a number >= 0 expected, given {steadiness!r}")
    torch.manual_seed(seed)
    policy = new_policy(problem, hidden, recurrent)
    optimiser = torch.optim.Adam(policy.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations, lr * 0.02)
    batch = backend.spec.batch_size
    checkpoint = checkpoint or Checkpoint()
    begun = time.perf_counter() - checkpoint.seconds
    first, low, high = 0, np.inf, -np.inf
    parts = {"policy": policy, "optimiser": optimiser, "decay": decay}
    if checkpoint.state is not None:
        first, low, high = checkpoint.state["reached"]
        restore(parts, checkpoint.state)
    for iteration in range(first, iterations):
        # Training seeds live above 2**40: no benchmark seed can meet them.
        seeds = 2**40 + (seed * iterations + iteration) * batch + np.arange(batch)
        final, changes, extremes = _episode(problem, backend, policy, seeds)
        low, high = min(low, extremes[0]), max(high, extremes[1])
        price = (final + steadiness * changes).mean()
        if not torch.isfinite(price):
            raise AllocgymError(
                f"training: the objective of iteration {iteration} is {price.item()}; the scenario's "
                "instances are too extreme (lower its jitter)"
            )
        optimiser.zero_grad()
        price.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        decay.step()
        if progress is not None:
            progress(iteration + 1, -float(final.detach().mean()))
        reached = (iteration + 1, low, high)
        checkpoint.keep(
            lambda reached=reached: {"reached": reached, **held(parts)}  # type: ignore[misc]
        )
    return policy.eval(), {
        "trainer": "gradients through the simulator",
        "iterations": iterations,
        "batch": batch,
        "episodes": iterations * batch,
        "seed": seed,
        "steadiness": steadiness,
        "observation range": [low, high],
        "seconds": round(time.perf_counter() - begun, 1),
    }


def _tensor(array: np.ndarray) -> Any:
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
    return torch.as_tensor(np.ascontiguousarray(array))


def _episode(
    problem: DataMixing, backend: Any, policy: SetPolicy, seeds: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor, tuple[float, float]]:
    """Play one episode a seed: final objective, changes of the mixture, range of the features."""
    first = backend.reset(seeds)
    dynamics = backend.dynamics(_tensor)
    outcome: MixingOutcome = first.map(_tensor)
    inst = outcome.instance
    noise = torch.as_tensor(backend.state.noise, dtype=torch.float32)
    horizon = int(first.instance.horizon.max())
    left = np.concatenate([backend.rates, np.zeros((1, len(seeds)))])
    state = dynamics.begin()
    memory = problem.begin(outcome)
    begin = memory.objective
    hidden = None
    low, high = 0.0, 0.0
    mixtures = []
    for t in range(horizon):
        observation = problem.encode(memory)
        claimants = observation["claimants"].detach()
        low, high = min(low, claimants.min().item()), max(high, claimants.max().item())
        action, _, hidden = policy(observation, hidden)
        shares = budget.anchored_shares(action.T, columns(inst.prior), problem.kappa)
        shares = within_limits(shares, inst, state.seen)
        units = shares * inst.budget
        mixtures.append(shares)
        state, losses = dynamics.step(state, units, t)
        measured = losses + noise * torch.randn_like(losses)
        rest = left[t + 1 :].sum(0) / max(horizon - t - 1, 1)
        outcome = MixingOutcome(
            spent=outcome.spent,
            seconds=outcome.seconds,
            ready=outcome.ready,
            valid=outcome.valid,
            failure=outcome.failure,
            done=outcome.done,
            losses=columns(measured.clamp(min=1e-3)),
            heldout=columns(losses),
            units=columns(units),
            seen=columns(state.seen),
            period=outcome.period + 1,
            lr=_tensor(left[min(t + 1, horizon - 1)]),
            lr_left=_tensor(rest),
            instance=inst,
        )
        memory = problem.update(memory, outcome)
    value, violation = objective(columns(outcome.heldout), columns(memory.heldout_start), inst)
    changes = torch.stack(mixtures).diff(dim=0).square().sum((0, 1))
    return value + inst.penalty * violation - begin, changes, (low, high)
