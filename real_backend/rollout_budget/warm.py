"""The model a run starts from: supervised on noisy labels once, then kept on disk.

Plain supervised warm starts fail: each cell ends near 0 or near 1, and reinforcement learning then
memorises. With one digit of a share of the labels corrupted the model knows the task and expresses
it unreliably: success rates are spread, and tries teach.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from allocgym.envs.core.cache import cache_folder
from allocgym.envs.core.errors import CorruptFileError
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.rollout_budget import tasks
from allocgym.real_backend.rollout_budget.model import REVISION, CharModel

BATCH = 128


def batch(
    cells: tuple[tasks.Cell, ...], size: int, answer: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Fresh prompts of the training split with noisy labels: ``(size, PROMPT)``, ``(size, answer)``."""
    prompts: list[list[int]] = []
    answers: list[list[int]] = []
    while len(prompts) < size:
        index = int(rng.integers(len(cells)))
        task = tasks.make_task(cells[index], index, rng)
        if sum(map(ord, task.prompt)) * 7919 % 5 == 0:
            continue
        text = task.answer
        if rng.random() < cells[index].noise:
            text = tasks.corrupt(text, cells[index], rng)
        codes = [*tasks.encode(text), tasks.END]
        prompts.append(tasks.encode_prompt(task.prompt))
        answers.append(codes + [tasks.PAD] * (answer - len(codes)))
    return torch.tensor(prompts), torch.tensor(answers)


def start_weights(
    model: CharModel,
    cells: tuple[tasks.Cell, ...],
    steps: int,
    seed: int,
    cache_dir: str | Path | None = None,
    progress: Callable[[int], Any] | None = None,
) -> None:
    """Load the warm start into ``model``; train it where it is not cached.

    Args:
        model: to fill.
        cells: tasks and noise.
        steps: optimiser steps of `BATCH` examples.
        seed: of weights and data.
        cache_dir: see `envs.core.cache.cache_folder`.
        progress: told the number of steps done.

    Raises:
        WriteError: the cache cannot be made or written.
    """
    key = json.dumps(
        {
            "cells": [str(c) for c in cells],
            "model": f"{REVISION} {model.config}",
            "steps": steps,
            "seed": seed,
            "torch": torch.__version__,
            "device": model.device.type,
        },
        sort_keys=True,
    )
    digest = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    path = cache_folder(cache_dir) / "rollout-budget" / f"warm-{digest}.safetensors"
    if path.exists():
        try:
            weights, _ = checkpoints.load(path)
            model.load_state_dict(weights)
            return
        except CorruptFileError as error:
            warnings.warn(f"{error}; training the warm start again", stacklevel=2)
    rng = np.random.default_rng([seed, 77])
    fresh = CharModel(model.config, seed).to(model.device)
    model.load_state_dict(fresh.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    for step in range(steps):
        rate = 2e-3 * min(1.0, (step + 1) / 50) * (0.05 + 0.95 * (1 - step / steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        prompts, answers = (
            t.to(model.device) for t in batch(cells, BATCH, model.config.answer, rng)
        )
        logits = model(torch.cat([prompts, answers[:, :-1]], 1))[:, tasks.PROMPT - 1 :]
        loss = F.cross_entropy(
            logits.reshape(-1, tasks.VOCABULARY), answers.reshape(-1), ignore_index=tasks.PAD
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if progress is not None:
            progress(step + 1)
    checkpoints.save(path, model.state_dict(), json.loads(key))
