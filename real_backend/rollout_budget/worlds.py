"""What a run trains and on what: a policy that samples answers, prompts in cells, a verifier."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allocgym.real_backend.rollout_budget import tasks
from allocgym.real_backend.rollout_budget.model import PRESETS, CharModel
from allocgym.real_backend.rollout_budget.warm import start_weights


class World(ABC):
    """Prompts come in cells (a family at a level); every cell has as many held-out prompts.

    Attributes:
        model: a module with ``sample``, ``log_probs``, ``device`` and ``size`` as `CharModel` has.
        names: of the cells.
        families: names of the families.
        family: ``(cells,)`` index of each cell's family.
        cell: ``(prompts,)`` cell of each training prompt.
        prompts: ``(prompts, length)`` tokens.
        held_cell: ``(held,)`` cell of each held-out prompt, cell after cell.
        held_prompts: ``(held, length)`` tokens.
        mean_tokens: of a right answer.
    """

    model: Any
    names: tuple[str, ...]
    families: tuple[str, ...]
    family: np.ndarray
    cell: np.ndarray
    prompts: Tensor
    held_cell: np.ndarray
    held_prompts: Tensor
    mean_tokens: float

    @abstractmethod
    def start(self, model: Any) -> None:
        """Put the weights a run starts from into ``model``."""

    @abstractmethod
    def verify(self, answers: Tensor, which: np.ndarray, held: bool = False) -> np.ndarray:
        """Reward of each answer, 0 or 1.

        Args:
            answers: ``(n, answer)`` tokens.
            which: ``(n,)`` the prompt each one answers.
            held: they are held-out prompts.
        """

    @abstractmethod
    def hidden(self, model: Any, which: np.ndarray) -> tuple[Tensor, Tensor]:
        """Last hidden states ``(n, length, width)`` of prompts, and ``(n, length)`` 1 for tokens."""

    def angles(self, which: np.ndarray) -> np.ndarray:
        """Angle concentration of prompts, ``(n,)``: GAIN-RL's signal (arXiv 2506.02281).

        Mean cosine between the hidden states of a prompt's tokens in the last layer of the model
        that a run starts from.
        """
        first = copy.deepcopy(self.model)
        self.start(first)
        with torch.no_grad():
            hidden, there = self.hidden(first, which)
            unit = hidden / hidden.norm(dim=-1, keepdim=True).clamp_min(1e-6)
            summed = (unit * there[..., None]).sum(1)
            count = there.sum(1)
            pairs = (summed * summed).sum(-1) - count
            return np.asarray((pairs / (count * (count - 1)).clamp_min(1)).cpu().numpy())


class Characters(World):
    """A character transformer on the six families of `tasks`, after a noisy supervised start.

    Args:
        scenario: regime, preset, prompts and warm start.
        device: of the model.
        cache_dir: where warm starts are kept.
    """

    def __init__(
        self, scenario: Any, device: torch.device, cache_dir: str | Path | None = None
    ) -> None:
        self.scenario, self.cache_dir = scenario, cache_dir
        self.model = CharModel(PRESETS[scenario.preset]).to(device)
        self.cells = tasks.regime_cells(scenario.regime)
        self.names = tuple(f"{c.family}-{c.level}" for c in self.cells)
        self.families = tasks.FAMILY_NAMES
        self.family = np.array([self.families.index(c.family) for c in self.cells])
        self._tasks = [
            tasks.pool(self.cells, each, seed, held=bool(seed))
            for seed, each in enumerate((scenario.each, scenario.held))
        ]
        self.cell, self.held_cell = (np.array([t.cell for t in pool]) for pool in self._tasks)
        self.prompts, self.held_prompts = (
            torch.tensor([tasks.encode_prompt(t.prompt) for t in pool], device=device)
            for pool in self._tasks
        )
        self.mean_tokens = float(np.mean([len(t.answer) + 1 for t in self._tasks[0]]))

    def start(self, model: Any) -> None:
        """See `World.start`: trained once, then read from the cache."""
        made = self.scenario
        start_weights(model, self.cells, made.warm_steps, made.warm_seed, self.cache_dir)

    def verify(self, answers: Tensor, which: np.ndarray, held: bool = False) -> np.ndarray:
        """See `World.verify`."""
        asked = [self._tasks[held][i] for i in which]
        return np.array(
            [
                float(tasks.verify(task, self.cells[task.cell], tasks.decode(codes)))
                for task, codes in zip(asked, answers.tolist(), strict=True)
            ]
        )

    def hidden(self, model: Any, which: np.ndarray) -> tuple[Tensor, Tensor]:
        """See `World.hidden`."""
        tokens = self.prompts[torch.as_tensor(which, device=self.prompts.device)]
        return model.stream(tokens), (tokens != tasks.PAD).float()
