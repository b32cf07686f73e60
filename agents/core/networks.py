"""One set-equivariant policy for every problem: shared weights per claimant, pooling between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from allocgym.envs.core.errors import AllocgymError


class SetPolicy(nn.Module):
    """Maps one row per claimant to one action per claimant, and the set to a value.

    Permuting the claimants permutes the actions; padding changes nothing; the same weights run at
    any number of claimants. A gated recurrent state per claimant, where asked for, remembers what
    the observation does not.

    Args:
        rows: features per claimant.
        context: features of the whole problem.
        hidden: width.
        recurrent: keep a state per claimant between decisions.
        skip: weights of a linear path from row features to the action, a good first policy.
        choices: sizes of the discrete choices each claimant makes; None for one number in (-1, 1).
    """

    def __init__(
        self,
        rows: int,
        context: int,
        hidden: int = 48,
        recurrent: bool = True,
        skip: dict[int, float] | None = None,
        choices: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "rows": rows,
            "context": context,
            "hidden": hidden,
            "recurrent": recurrent,
        }
        self.choices = None if choices is None else [int(c) for c in choices]
        if self.choices is not None:
            self.settings["choices"] = self.choices
        self.hidden = hidden
        self.recurrent = recurrent
        self.encode = nn.Sequential(nn.Linear(rows + context, hidden), nn.Tanh())
        self.mix = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.Tanh())
        self.memory = nn.GRUCell(hidden, hidden) if recurrent else None
        outputs = 1 if self.choices is None else sum(self.choices)
        self.head = nn.Linear(hidden, outputs)
        self.skip = nn.Linear(rows, outputs, bias=False)
        self.value = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        with torch.no_grad():
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()
            self.skip.weight.zero_()
            for index, weight in (skip or {}).items():
                self.skip.weight[0, index] = weight

    def to_file(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Kind, settings and tensors of the agent file."""
        return "set-policy", self.settings, self.state_dict()

    def forward(self, observation: dict[str, Tensor], state: Tensor | None = None) -> Any:
        """Decide for a batch.

        Args:
            observation: ``claimants (batch, n, rows)``, ``context (batch, context)``,
                ``present (batch, n)``.
            state: ``(batch, n, hidden)`` from the previous decision, None at the first.

        Returns:
            Actions ``(batch, n)`` in (-1, 1), 0 for padding (logits ``(batch, n, sum of choices)``
            where choices are made); values ``(batch,)``; the next state.
        """
        x = observation["claimants"]
        mask = observation["present"].to(x.dtype)[..., None]
        side = observation["context"][:, None].expand(-1, x.shape[1], -1)
        h = self.encode(torch.cat([x, side], -1)) * mask
        pooled = self._pool(h, mask)
        h = self.mix(torch.cat([h, pooled[:, None].expand(-1, x.shape[1], -1)], -1)) * mask
        if self.memory is not None:
            previous = torch.zeros_like(h) if state is None else state
            flat = self.memory(h.reshape(-1, self.hidden), previous.reshape(-1, self.hidden))
            state = flat.view_as(h) * mask
            h = h + state
        raw = self.head(h) + self.skip(x)
        value = self.value(self._pool(h, mask))[:, 0]
        if self.choices is not None:
            return raw, value, state
        return (torch.tanh(raw) * mask)[..., 0], value, state

    @staticmethod
    def _pool(h: Tensor, mask: Tensor) -> Tensor:
        mean = (h * mask).sum(1) / mask.sum(1)
        return torch.cat([mean, h.masked_fill(mask == 0, -1e9).amax(1)], -1)

    @torch.no_grad()
    def predict(
        self,
        observation: dict[str, np.ndarray],
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Decide from NumPy observations (the protocol of Stable-Baselines3)."""
        tensors = {
            k: torch.as_tensor(np.ascontiguousarray(v), dtype=torch.float32)
            for k, v in observation.items()
        }
        if tensors["claimants"].shape[-1] != self.settings["rows"]:
            raise AllocgymError(
                f"observation: {self.settings['rows']} features a claimant expected, "
                f"given {tensors['claimants'].shape[-1]}"
            )
        action, _, state = self(tensors, state)
        if self.choices is not None:
            each = action.split(self.choices, -1)
            picked = [
                one.argmax(-1)
                if deterministic
                else torch.distributions.Categorical(logits=one).sample()
                for one in each
            ]
            return torch.stack(picked, -1).flatten(1).numpy(), state
        return action.numpy(), state
