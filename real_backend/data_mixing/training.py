"""The training loop: one model, one optimiser, one stream of sequences per domain."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from allocgym.real_backend.data_mixing.corpora import Corpus
from allocgym.real_backend.data_mixing.model import GPT, ModelConfig
from allocgym.real_backend.data_mixing.streams import Stream, evaluation_set, interleave

BATCH = 16
"""Sequences of one optimiser step."""
_EVALUATION_BATCH = 64
_LOG2 = float(np.log(2.0))


@dataclasses.dataclass(frozen=True)
class Shard:
    """One worker's part of every batch.

    Attributes:
        rank, world: this worker takes sequences ``rank``, ``rank + world``, ... of each batch.
        reduce: sums a tensor over all workers, in place.
    """

    rank: int
    world: int
    reduce: Callable[[Tensor], Any]

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over workers: the whole batch's, as the loss is a sum."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        self.reduce(flat)
        for gradient, summed in zip(
            gradients, flat.split([g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(summed.view_as(gradient))


class Trainer:
    """Trains a byte-level GPT on sequences of several domains; the same class on CPU and CUDA.

    On CUDA it computes in bfloat16 and compiles the model. On a CPU, two trainers given the same
    calls at the same thread count hold the same bits.

    Args:
        corpora: the domains.
        config: shape of the model.
        device: where to train.
        unique: number of distinct windows of each domain that is restricted, by name.
        valid_windows, test_windows: windows of each domain to evaluate on.

    Attributes:
        shard: this worker's part of each batch where several train one model, or None. All of them
            must be given the same calls; then they hold the same weights.
    """

    shard: Shard | None = None

    def __init__(
        self,
        corpora: Sequence[Corpus],
        config: ModelConfig,
        device: torch.device,
        unique: Mapping[str, int] | None = None,
        valid_windows: int = 24,
        test_windows: int = 64,
    ) -> None:
        self.corpora = list(corpora)
        self.config = config
        self.device = device
        self._unique = dict(unique or {})
        self._sets = {
            "valid": self._evaluation("valid", valid_windows),
            "test": self._evaluation("test", test_windows),
        }
        self.begin(0, 0)

    def begin(
        self,
        model_seed: int,
        data_seed: int,
        stage: str = "episode",
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Start a run with a fresh optimiser.

        Args:
            model_seed: of the initial weights, where none are given.
            data_seed: of the order of sequences.
            stage: as in `Stream`.
            weights: to start from, as `weights` returns them.
        """
        self.model = GPT(self.config, model_seed).to(self.device)
        if weights is not None:
            self.model.load_state_dict(dict(weights))
        self._forward: Callable[[Tensor], Tensor] = self.model
        if self.device.type == "cuda":
            self._forward = torch.compile(self.model)
        # The learning rate of a step is set before it; this one is never used.
        self._optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )
        self._streams = [
            Stream(c, self.config.context, data_seed, stage, self._unique.get(c.name))
            for c in self.corpora
        ]
        self.cursors = np.zeros(len(self.corpora), np.int64)

    @property
    def epochs(self) -> np.ndarray:
        """``(n,)`` int64 sequences in one epoch of each domain."""
        return np.array([stream.epoch for stream in self._streams])

    def train(
        self, units: np.ndarray, rates: np.ndarray, progress: Callable[[int], Any] | None = None
    ) -> None:
        """Train on the next ``units`` sequences of each domain, spread evenly over the steps.

        Args:
            units: ``(n,)`` integers summing to ``len(rates) * BATCH``.
            rates: ``(steps,)`` learning rate of each optimiser step.
            progress: told the number of steps done, after each.
        """
        order = interleave(units).reshape(len(rates), BATCH)
        self.model.train()
        for step, (domains, rate) in enumerate(zip(order, rates, strict=True)):
            self._step(*self._batch(domains), float(rate))
            if progress is not None:
                progress(step + 1)

    def evaluate(self, split: str) -> np.ndarray:
        """Return ``(n,)`` mean losses in bits per scored byte on ``"valid"`` or ``"test"``."""
        tokens, scored, owner = self._sets[split]
        self.model.eval()
        sums, counts = np.zeros(len(self.corpora)), np.zeros(len(self.corpora))
        with torch.no_grad():
            for start in range(0, len(tokens), _EVALUATION_BATCH):
                part = slice(start, start + _EVALUATION_BATCH)
                losses = self._losses(tokens[part]).double() * scored[part]
                np.add.at(sums, owner[part], losses.sum(1).cpu().numpy())
                np.add.at(counts, owner[part], scored[part].sum(1).cpu().numpy())
        return sums / counts / _LOG2

    def evaluation_bytes(self, split: str) -> int:
        """Count the bytes one evaluation reads."""
        return self._sets[split][0][:, 1:].numel()

    def weights(self) -> dict[str, Tensor]:
        """Copy the model's weights, on the CPU."""
        return {k: v.detach().cpu().clone() for k, v in self.model.state_dict().items()}

    def state(self) -> dict[str, Tensor]:
        """Copy everything that training depends on: weights, optimiser, data cursors."""
        state = {f"model.{k}": v.detach().clone() for k, v in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                state[f"optimiser.{name}.{key}"] = value.detach().clone()
        state["cursors"] = torch.from_numpy(self.cursors.copy())
        return state

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned, in this or another process."""
        prefix = "model."
        model = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        self.model.load_state_dict(model)
        self._optimiser.state.clear()
        for name, parameter in self.model.named_parameters():
            found = {
                key: state[f"optimiser.{name}.{key}"].to(self.device, copy=True)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"optimiser.{name}.{key}" in state
            }
            if found:
                self._optimiser.state[parameter] = found
        self.cursors = state["cursors"].cpu().numpy().copy()

    def _step(self, tokens: Tensor, scored: Tensor, rate: float) -> None:
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        count, shard = len(tokens), self.shard
        if shard is not None:
            tokens, scored = tokens[shard.rank :: shard.world], scored[shard.rank :: shard.world]
        loss = (self._losses(tokens) * scored).sum() / count
        self._optimiser.zero_grad()
        loss.backward()
        if shard is not None:
            shard.sum_gradients(self.model.parameters())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._optimiser.step()

    def _losses(self, tokens: Tensor) -> Tensor:
        """Nats of each predicted byte, ``(batch, context)``."""
        half = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            logits = self._forward(tokens[:, :-1])
        flat = F.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        return flat.view(len(tokens), -1)

    def _batch(self, domains: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = []
        for domain in domains:
            rows.append(self._streams[domain].sequence(int(self.cursors[domain])))
            self.cursors[domain] += 1
        tokens = np.stack([row for row, _ in rows]).astype(np.int64)
        scored = np.stack([weights for _, weights in rows])
        return torch.from_numpy(tokens).to(self.device), torch.from_numpy(scored).to(self.device)

    def _evaluation(self, split: str, count: int) -> tuple[Tensor, Tensor, np.ndarray]:
        parts = [
            evaluation_set(getattr(c, split), self.config.context, count, c.answers)
            for c in self.corpora
        ]
        tokens = torch.from_numpy(np.concatenate([t for t, _ in parts]).astype(np.int64))
        scored = torch.from_numpy(np.concatenate([s for _, s in parts]))
        owner = np.repeat(np.arange(len(parts)), [len(t) for t, _ in parts])
        return tokens.to(self.device), scored.to(self.device), owner
