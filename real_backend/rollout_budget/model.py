"""A character transformer that samples with a key-value cache."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.rollout_budget import tasks

REVISION = 1
"""To be raised where the same weights come to mean another function: it is part of cache keys."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape of the model.

    Attributes:
        width: of the residual stream.
        layers: transformer blocks.
        heads: of attention.
        answer: longest answer in tokens, the end mark included.
    """

    width: int = 64
    layers: int = 2
    heads: int = 4
    answer: int = 18

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) < 1:
                raise AllocgymError(
                    f"{field.name}: an integer >= 1 expected, given {getattr(self, field.name)}"
                )
        if self.width % self.heads:
            raise AllocgymError(f"width: a multiple of heads ({self.heads}), given {self.width}")


PRESETS = {"tiny": ModelConfig(), "large": ModelConfig(width=384, layers=6, heads=6)}
"""0.1 million parameters for a processor core; 11 million for one GPU (not run here)."""


class Block(nn.Module):
    """Causal attention and an MLP; keys and values may come from a cache."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(
        self, x: Tensor, cache: tuple[Tensor, Tensor] | None = None, start: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new stream, and the keys and values of these positions.

        Args:
            x: ``(batch, length, width)``.
            cache: keys and values ``(batch, heads, room, head width)``, filled up to ``start``;
                those of ``x`` are written into it.
            start: position of the first of ``x``.
        """
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        if cache is None:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            keys, values = cache
            keys[:, :, start : start + t] = k
            values[:, :, start : start + t] = v
            mixed = F.scaled_dot_product_attention(
                q, keys[:, :, : start + t], values[:, :, : start + t]
            )
        x = x + self.out(mixed.transpose(1, 2).reshape(b, t, d))
        return x + self.down(F.gelu(self.up(self.norm2(x)))), k, v


class CharModel(nn.Module):
    """Predicts the next character after a prompt of fixed length.

    Args:
        config: its shape.
        seed: of the initial weights.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        generator = torch.Generator().manual_seed(seed)
        self.token = nn.Embedding(tasks.VOCABULARY, config.width)
        self.place = nn.Embedding(tasks.PROMPT + config.answer, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, tasks.VOCABULARY)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = 0.02 if "token" in name or "place" in name else config.width**-0.5
                nn.init.normal_(parameter, std=std, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def stream(self, tokens: Tensor) -> Tensor:
        """Hidden states ``(batch, length, width)`` after the last block."""
        x = self.token(tokens) + self.place.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)[0]
        return self.norm(x)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``(batch, length, vocabulary)``."""
        logits: Tensor = self.head(self.stream(tokens))
        return logits

    @torch.no_grad()
    def sample(
        self, prompts: Tensor, counts: Tensor, generator: torch.Generator, temperature: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Sample answers with a cache; each prompt is read once, whatever its count.

        Args:
            prompts: ``(m, PROMPT)`` tokens.
            counts: ``(m,)`` rollouts of each.
            generator: of the draws, on the model's device.
            temperature: of the softmax.

        Returns:
            ``(n, answer)`` tokens, prompts in order (`tasks.PAD` after the end mark), and ``(n,)``
            generated tokens, the end mark included.
        """
        most, size = self.config.answer, tasks.PROMPT
        x = self.token(prompts) + self.place.weight[:size]
        caches = []
        for block in self.blocks:
            x, k, v = block(x)
            room = [
                torch.zeros(int(counts.sum()), k.shape[1], size + most, k.shape[3], device=k.device)
                for _ in range(2)
            ]
            for held, fresh in zip(room, (k, v), strict=True):
                held[:, :, :size] = fresh.repeat_interleave(counts, 0)
            caches.append((room[0], room[1]))
        logits = self.head(self.norm(x[:, -1])).repeat_interleave(counts, 0)
        n = len(logits)
        out = torch.full((n, most), tasks.PAD, dtype=torch.long, device=self.device)
        alive = torch.arange(n, device=self.device)
        for t in range(most):
            # Exponential race: as good as multinomial, and one pass.
            race = torch.empty_like(logits).exponential_(generator=generator)
            chosen = ((logits / temperature).softmax(-1) / race).argmax(-1)
            out[alive, t] = chosen
            going = chosen != tasks.END
            if t + 1 == most or not going.any():
                break
            if int(going.sum()) < 0.7 * len(going):
                # Most have ended: go on with the others only.
                caches = [(k[going], v[going]) for k, v in caches]
                alive, chosen = alive[going], chosen[going]
            else:
                chosen = chosen.where(going, torch.full_like(chosen, tasks.PAD))
            x = self.token(chosen)[:, None] + self.place.weight[size + t]
            for block, cache in zip(self.blocks, caches, strict=True):
                x = block(x, cache, size + t)[0]
            logits = self.head(self.norm(x[:, -1]))
            ended = (out[alive] == tasks.END).any(1)
            if ended.any():
                logits[ended] = -1e9
                logits[ended, tasks.END] = 0
        ends = out == tasks.END
        first = torch.where(ends.any(1), ends.int().argmax(1), torch.full_like(out[:, 0], most - 1))
        place = torch.arange(most, device=self.device)
        out = out.where(place <= first[:, None], torch.full_like(out, tasks.PAD))
        return out, first + 1

    def log_probs(self, prompts: Tensor, answers: Tensor) -> Tensor:
        """Summed log-probability of each answer, ``(n,)``; prompts ``(n, PROMPT)``."""
        tokens = torch.cat([prompts, answers[:, :-1]], 1)
        logits = self.head(self.stream(tokens)[:, tasks.PROMPT - 1 :])
        mask = answers != tasks.PAD
        picked = logits.log_softmax(-1).gather(2, answers[..., None])[..., 0]
        summed: Tensor = (picked * mask).sum(1)
        return summed

    def size(self) -> int:
        """Count the parameters."""
        return sum(p.numel() for p in self.parameters())
