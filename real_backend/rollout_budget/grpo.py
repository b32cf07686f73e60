"""Group-relative policy gradients: GRPO, Dr.GRPO, RLOO, with either weighting of the loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from allocgym.envs.core.errors import unknown
from allocgym.real_backend.rollout_budget.model import CharModel

ESTIMATORS = ("grpo", "dr-grpo", "rloo")
WEIGHTS = ("rollout", "prompt")


def advantages(
    rewards: np.ndarray, group: np.ndarray, groups: int, estimator: str = "grpo"
) -> np.ndarray:
    """Advantage of each rollout within its group.

    ``"grpo"``: reward less the group's mean over its standard deviation; ``"dr-grpo"``: without the
    standard deviation; ``"rloo"``: less the mean of the others. Groups of equal rewards get 0.

    Args:
        rewards: ``(n,)``.
        group: ``(n,)`` integers in [0, groups).
        groups: number of groups.
        estimator: one of `ESTIMATORS`.
    """
    if estimator not in ESTIMATORS:
        raise unknown("estimator", estimator, ESTIMATORS)
    size = np.maximum(np.bincount(group, minlength=groups), 1)
    mean = np.bincount(group, rewards, groups) / size
    centred = rewards - mean[group]
    if estimator == "rloo":
        return centred * (size / np.maximum(size - 1, 1))[group]
    if estimator == "dr-grpo":
        return centred
    sd = np.sqrt(np.bincount(group, centred**2, groups) / size)
    return np.asarray(centred / np.where(sd > 0, sd, 1)[group])


def loss_weights(group: np.ndarray, groups: int, loss_weight: str = "rollout") -> np.ndarray:
    """Weight of each rollout in the loss; all sum to 1.

    ``"rollout"``: equal, so that a prompt's pull grows with its rollouts; ``"prompt"``: each prompt
    that was tried pulls alike.
    """
    if loss_weight not in WEIGHTS:
        raise unknown("loss_weight", loss_weight, WEIGHTS)
    n = len(group)
    if loss_weight == "rollout":
        return np.full(n, 1 / max(n, 1))
    size = np.bincount(group, minlength=groups)
    return np.asarray(1 / size[group] / max((size > 0).sum(), 1))


def update(
    model: CharModel,
    optimizer: torch.optim.Optimizer,
    prompts: Tensor,
    answers: Tensor,
    group: np.ndarray,
    rewards: np.ndarray,
    estimator: str = "grpo",
    loss_weight: str = "rollout",
    clip: float = 1.0,
) -> float:
    """One on-policy gradient step (the importance ratio is 1: nothing is clipped).

    Args:
        model: in training.
        optimizer: of its parameters.
        prompts: ``(m, PROMPT)`` tokens.
        answers: ``(n, answer)`` sampled tokens.
        group: ``(n,)`` prompt of each answer.
        rewards: ``(n,)`` 0 or 1.
        estimator: of advantages.
        loss_weight: see `loss_weights`.
        clip: largest gradient norm.

    Returns:
        The gradient's norm before clipping (0 where no group is mixed: no step is taken).
    """
    groups = len(prompts)
    a = advantages(rewards, group, groups, estimator) * loss_weights(group, groups, loss_weight)
    useful = np.flatnonzero(a)
    if not len(useful):
        return 0.0
    device = model.device
    rows = torch.as_tensor(group[useful], device=device)
    picked = torch.as_tensor(useful, device=device)
    weights = torch.as_tensor(a[useful], dtype=torch.float32, device=device)
    log_p = model.log_probs(prompts[rows], answers[picked])
    # A constant divisor for the length, as in Dr.GRPO: long answers are not favoured.
    loss = -(weights * log_p).sum()
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    if not bool(torch.isfinite(norm)):
        return float("nan")
    optimizer.step()
    return float(norm)
