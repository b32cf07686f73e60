"""The base model a run continues from: trained once, then kept on disk."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allocgym.envs.core.cache import cache_folder
from allocgym.envs.core.errors import CorruptFileError
from allocgym.envs.data_mixing.schedules import step_rates
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.data_mixing.model import REVISION
from allocgym.real_backend.data_mixing.scenario import RealMixingScenario
from allocgym.real_backend.data_mixing.training import BATCH, Trainer


def base_weights(
    scenario: RealMixingScenario,
    trainer: Trainer,
    seed: int,
    cache_dir: str | Path | None = None,
    progress: Callable[[int], Any] | None = None,
) -> dict[str, Tensor]:
    """Return the weights an episode starts from; trains them where they are not cached.

    The file's name is a hash of all that the weights depend on: source texts, model, steps,
    learning rate, seed, version of PyTorch and kind of device.

    Args:
        scenario: the run; its sources get equal shares of ``base_steps``.
        trainer: of the scenario's domains. Left in an undefined state.
        seed: of the initial weights and the order of data.
        cache_dir: see `envs.core.cache.cache_folder`.
        progress: told the number of steps done, after each.
    """
    if scenario.base_steps == 0:
        trainer.begin(seed, seed)
        return trainer.weights()
    sources = np.isin(scenario.names, scenario.source)
    used = {c.name: c.digest for c, known in zip(trainer.corpora, sources, strict=True) if known}
    key = json.dumps(
        {
            "corpora": used,
            "unique": {n: u for n, u in scenario.unique.items() if n in used},
            "model": f"{REVISION} {trainer.config}",
            "steps": scenario.base_steps,
            "lr": scenario.base_lr,
            "seed": seed,
            "torch": torch.__version__,
            "device": trainer.device.type,
        },
        sort_keys=True,
    )
    digest = hashlib.blake2b(key.encode(), digest_size=12).hexdigest()
    path = cache_folder(cache_dir) / "data-mixing" / f"base-{digest}.safetensors"
    if path.exists():
        try:
            weights, _ = checkpoints.load(path)
            return weights
        except CorruptFileError as error:
            warnings.warn(f"{error}; training the base model again", stacklevel=2)
    trainer.begin(seed, seed, stage="base")
    total = scenario.base_steps * BATCH
    units = np.where(sources, total // sources.sum(), 0)
    units[np.flatnonzero(sources)[: total - units.sum()]] += 1
    rates = scenario.base_lr * step_rates("cosine", scenario.base_steps)
    trainer.train(units, rates, progress)
    weights = trainer.weights()
    checkpoints.save(path, weights, json.loads(key))
    return weights
