"""Agents of strategy selection: rules at the node at hand, a tuned score, the whole-instance search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent, rollout
from allocgym.agents.core.evolution import tune
from allocgym.agents.strategy_selection import search as strategies
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, unknown
from allocgym.envs.strategy_selection.problem import (
    SelectionMemory,
    SelectionOutcome,
    StrategyChoice,
    StrategySelection,
)

KIND = "selection-score"
NAMES = ("least-memory", "myopic", "look-ahead", "random", "search", "scored")
WEIGHTS = ("node", "decided neighbours", "ahead", "usage", "usage x fullness")
PRETRAINED = Path(__file__).parent / "pretrained" / "learned.zip"


def terms(memory: SelectionMemory) -> np.ndarray:
    """``(batch, n, len(WEIGHTS))`` what a strategy costs, in parts of the row's dearest choice."""
    t = np.minimum(memory.table, 1e12)
    whole = np.where(memory.present, t[..., :3].sum(-1), 0).max(1)[:, None, None]
    usage = t[..., 3:4]
    fullness = np.clip(t[..., 4:5], 0, 1) ** 4
    found: np.ndarray = np.concatenate(
        [t[..., :3] / np.maximum(whole, 1e-9), usage, usage * fullness], -1
    )
    return found


class Selector(Agent[SelectionOutcome, StrategyChoice]):
    """Decides the node at hand by one of `NAMES`, or by the weights of an agent file.

    ``search`` looks at the whole instance when the episode starts, which the outcome does not show: it
    counts as clairvoyant.

    Args:
        problem: `StrategySelection`.
        name: of `NAMES`, or an agent file.
        weights: of `terms`, for ``"scored"`` (default: the shipped ones).
        seconds: CPU time of the search, per episode.
    """

    def __init__(
        self,
        problem: StrategySelection,
        name: str,
        weights: np.ndarray | None = None,
        seconds: float = 2.0,
    ) -> None:
        super().__init__(problem)
        if name not in NAMES:
            if Path(name).suffix != ".zip":
                raise unknown("agent", name, NAMES)
            weights, name = load(Path(name)), "scored"
        if name == "scored" and weights is None:
            weights = load(PRETRAINED)
        self.name, self.weights, self.seconds = name, weights, seconds
        self.clairvoyant = name == "search"
        self._plans: list[np.ndarray | None] = []

    def _start(self) -> None:
        self._rng = np.random.default_rng(self.seed)

    def peek(self, backend: Any) -> None:
        """Search each instance (``search`` only)."""
        if self.name != "search":
            return
        self._plans = [
            strategies.search(w.problem, self.seconds, self.seed).choice for w in backend.walks
        ]

    def ask(self) -> StrategyChoice:
        """See `Agent.ask`."""
        memory, problem = self.memory, self.problem
        masks = problem.masks(memory)  # type: ignore[attr-defined]
        rules: dict[str, Callable[[], np.ndarray]] = {
            "least-memory": lambda: memory.table[..., 3],
            "myopic": lambda: memory.table[..., :2].sum(-1),
            "look-ahead": lambda: memory.table[..., :3].sum(-1),
            "random": lambda: self._rng.random(masks.shape),
            "search": lambda: memory.table[..., :3].sum(-1),
            "scored": lambda: terms(memory) @ np.asarray(self.weights),
        }
        pick = np.where(masks, rules[self.name](), np.inf).argmin(1)
        if self.name == "search":
            for row, plan in enumerate(self._plans):
                if plan is not None and not memory.done[row]:
                    pick[row] = plan[int(memory.step[row])]
        return StrategyChoice(np.where(memory.done, -1, pick))


def train(
    make: Callable[[int], Any], iterations: int = 60, seed: int = 0, batch: int = 24
) -> tuple[np.ndarray, dict[str, Any]]:
    """Tune the weights of a score by CMA-ES on generated instances.

    Args:
        make: a back end of so many environments.
        iterations: generations.
        seed: of everything.
        batch: instances per candidate.
    """
    backend = make(batch)
    problem = backend.problem

    def score(parameters: list[float], seeds: np.ndarray) -> float:
        agent = Selector(problem, "scored", np.array(parameters))
        last = rollout(agent, backend, seeds)[-1]
        return -float(problem.begin(last).objective.mean())

    found, provenance = tune(score, batch, [1.0, 1.0, 1.0, 0.0, 0.0], 0.4, iterations, seed)
    return np.array(found), provenance


def save(path: Path, weights: np.ndarray, provenance: dict[str, Any]) -> None:
    """Write an agent file."""
    import torch

    tensors = {"weights": torch.tensor(weights)}
    agent_file.save(path, StrategySelection(), KIND, {"terms": list(WEIGHTS)}, tensors, provenance)


def load(path: Path) -> np.ndarray:
    """Read an agent file's weights."""
    description, tensors = agent_file.load(path, StrategySelection())
    if description["kind"] != KIND or tensors is None or "weights" not in tensors:
        raise CorruptFileError(f"{path}: holds {description['kind']!r}, not a score")
    weights: np.ndarray = tensors["weights"].numpy()
    if description["settings"].get("terms") != list(WEIGHTS) or weights.shape != (len(WEIGHTS),):
        raise AllocgymError(f"{path}: made for other terms; retrain it")
    return weights
