"""A few linear rules that each put the same things in an order; the best order is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.envs.core.contracts import Problem
from allocgym.envs.core.errors import AllocgymError, CorruptFileError


class Portfolio:
    """Rules that score things by what describes them.

    Args:
        weights: ``(members, len(columns))``; each member is one rule.

    Attributes:
        kind: of its agent file.
        label: what the file calls ``columns``.
        columns: names of what describes a thing.
    """

    kind: ClassVar[str]
    label: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]

    def __init__(self, weights: Any) -> None:
        self.weights = np.atleast_2d(np.asarray(weights, float))
        if self.weights.shape[1] != len(self.columns) or not np.isfinite(self.weights).all():
            raise AllocgymError(
                f"weights: {len(self.columns)} finite numbers a member expected, "
                f"given shape {self.weights.shape}"
            )

    def ranked(self, table: np.ndarray) -> list[np.ndarray]:
        """Rows of ``(n, len(columns))`` by falling score, one order for each member."""
        return [ranked(table, w) for w in self.weights]

    def to_file(self) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """Kind, settings and tensors of the agent file."""
        import torch

        settings = {self.label: list(self.columns)}
        return self.kind, settings, {"weights": torch.tensor(self.weights)}

    @classmethod
    def of(cls, settings: Mapping[str, Any], tensors: Mapping[str, Any] | None) -> Self:
        """Rebuild from what an agent file holds.

        Raises:
            AllocgymError: made for other columns.
            CorruptFileError: no weights.
        """
        if tensors is None or "weights" not in tensors:
            raise CorruptFileError(f"agent file: {cls.kind!r} without weights")
        if settings.get(cls.label) != list(cls.columns):
            raise AllocgymError(f"agent file: made for other {cls.label}; retrain it")
        return cls(tensors["weights"].numpy())

    @classmethod
    def load(cls, path: Path, problem: Problem) -> Self:
        """Read an agent file.

        Raises:
            AllocgymError: no such file, or another problem's.
            CorruptFileError: damaged, or of another kind.
        """
        description, tensors = agent_file.load(path, problem)
        if description["kind"] != cls.kind:
            raise CorruptFileError(f"{path}: holds {description['kind']!r}, not {cls.kind!r}")
        return cls.of(description["settings"], tensors)


def ranked(table: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """Rows of a table by falling score, ties in their order."""
    return np.argsort(-(table @ np.asarray(weights)), kind="stable")
