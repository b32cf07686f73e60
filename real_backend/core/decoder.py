"""A small GPT whose groups (attention and feed-forward of each block) are run one by one; torch only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Pre-norm causal attention with the residual added."""

    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.qkv, self.out = nn.LayerNorm(d), nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, rows, d)`` to the same."""
        b, t, d = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, t, 3, self.heads, d // self.heads).unbind(2)
        mixed = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True
        )
        return x + self.out(mixed.transpose(1, 2).reshape(b, t, d))


class FeedForward(nn.Module):
    """Pre-norm two-layer network with the residual added."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(d), nn.Linear(d, 4 * d), nn.Linear(4 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, rows, d)`` to the same."""
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Decoder(nn.Module):
    """A decoder as a list of groups (attention and feed-forward of each block), and a head."""

    def __init__(self, d: int, layers: int, vocabulary: int, rows: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, d)
        self.places = nn.Parameter(torch.zeros(rows, d))
        parts: list[nn.Module] = []
        for _ in range(layers):
            parts += [Attention(d, max(d // 64, 1)), FeedForward(d)]
        self.groups = nn.ModuleList(parts)
        self.head = nn.Linear(d, vocabulary)

    def forward(self, tokens: Tensor, run: Callable[[int, nn.Module, Tensor], Tensor]) -> Tensor:
        """Loss of predicting the next token; ``run`` executes each group."""
        x = self.embed(tokens[:, :-1]) + self.places
        for i, group in enumerate(self.groups):
            x = run(i, group, x)
        logits = self.head(x)
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
