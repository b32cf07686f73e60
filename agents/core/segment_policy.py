"""A set encoder per segment (or activation group) and a masked choice for the one at hand; torch only."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from allocgym.agents.core import agent_file
from allocgym.envs.core.choice import ChoiceProblem
from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.errors import CorruptFileError

KIND = "segment-policy"
FARTHEST = -1e9


class SegmentPolicy(nn.Module):
    """Encodes every row with shared weights, pools them, and decides the row at hand.

    The order of the other rows and padding change nothing; the same weights run at any number of rows.

    Args:
        rows: features per row.
        context: features of the whole.
        choices: actions.
        hidden: width.
        current: column that marks the row at hand; None for the first row.
    """

    def __init__(
        self,
        rows: int,
        context: int,
        choices: int = 3,
        hidden: int = 64,
        current: int | None = None,
    ) -> None:
        super().__init__()
        self.settings: dict[str, Any] = {
            "rows": rows,
            "context": context,
            "choices": choices,
            "hidden": hidden,
            "current": current,
        }
        self.current = current
        self.encode = nn.Sequential(
            nn.Linear(rows + context, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh()
        )
        wide = 3 * hidden + rows + context
        self.act = nn.Sequential(nn.Linear(wide, hidden), nn.Tanh(), nn.Linear(hidden, choices))
        self.judge = nn.Sequential(nn.Linear(wide, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        with torch.no_grad():
            last: Any = self.act[-1]
            last.weight.mul_(0.1)
            last.bias.zero_()

    def forward(self, observation: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Masked logits ``(batch, choices)`` and values ``(batch,)`` of observations as float tensors."""
        rows, context = observation["claimants"], observation["context"]
        present = observation["present"][..., None]
        both = torch.cat([rows, context[:, None].expand(-1, rows.shape[1], -1)], -1)
        each = self.encode(both)
        mean = (each * present).sum(1) / present.sum(1).clamp(min=1)
        most = (each + FARTHEST * (1 - present)).max(1).values.clamp(min=-1)
        if self.current is None:
            mine, here = rows[:, 0], each[:, 0]
        else:
            mark = (rows[..., self.current] * present[..., 0])[..., None]
            mine, here = (rows * mark).sum(1), (each * mark).sum(1)
        whole = torch.cat([mean, most, here, mine, context], -1)
        logits = self.act(whole) + FARTHEST * (1 - observation["action_mask"])
        return logits, self.judge(whole)[:, 0]

    def look(self, observation: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Log-probabilities and values of NumPy observations."""
        with torch.no_grad():
            given = {
                k: torch.as_tensor(np.asarray(v), dtype=torch.float32)
                for k, v in observation.items()
            }
            logits, value = self(given)
            return torch.log_softmax(logits, -1).numpy(), value.numpy()

    def to_file(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Kind, settings and tensors of the agent file."""
        return KIND, self.settings, dict(self.state_dict())

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = True,
    ) -> tuple[np.ndarray, Any]:
        """Legal actions, the most likely ones (or drawn from torch's generator), and no state."""
        logs, _ = self.look(observation)
        if deterministic:
            return logs.argmax(-1), None
        drawn = torch.distributions.Categorical(logits=torch.as_tensor(logs)).sample()
        return drawn.numpy(), None


def make(problem: ChoiceProblem[Any, Any], hidden: int = 64) -> SegmentPolicy:
    """A policy of the right shape for a problem."""
    space: Any = problem.observation_space
    choices: Any = problem.action_space
    return SegmentPolicy(
        space["claimants"].shape[-1],
        space["context"].shape[-1],
        int(choices.n),
        hidden,
        problem.marker,
    )


def of(settings: Mapping[str, Any], tensors: Mapping[str, Any] | None) -> SegmentPolicy:
    """Rebuild a policy from what an agent file holds.

    Raises:
        CorruptFileError: the weights are missing or do not fit the settings.
    """
    return agent_file.network("agent file", SegmentPolicy, settings, tensors)


def load(path: Path, problem: Problem) -> SegmentPolicy:
    """Read an agent file.

    Raises:
        AllocgymError: no such file, or another problem's.
        CorruptFileError: damaged, or of another kind.
    """
    description, tensors = agent_file.load(path, problem)
    if description["kind"] != KIND:
        raise CorruptFileError(f"{path}: holds {description['kind']!r}, not a segment policy")
    return of(description["settings"], tensors)
