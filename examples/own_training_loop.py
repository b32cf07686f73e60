"""Steer a training loop that knows nothing of Gymnasium.

The loop below trains a tiny model on three synthetic domains with plain PyTorch. A controller says
how many of each period's sequences come from which domain; the loop tells it the losses it measured.
Kill it at any moment and start it again: the controller takes up its journal.

Run: python examples/own_training_loop.py [FOLDER] [AGENT]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from allocgym.agents.core import catalogue
from allocgym.agents.core.controller import Controller
from allocgym.envs.core.contracts import Spec
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingInstance, MixingOutcome

DOMAINS, PERIODS, SEQUENCES = ("waves", "steps", "noise"), 8, 60


def batch(domain: int, size: int, seed: int) -> torch.Tensor:
    """Sequences of length 16 of one domain; this loop's own data, any other would do."""
    g = torch.Generator().manual_seed(seed)
    phase = torch.rand(size, 1, generator=g) * 6
    x = torch.arange(16) / 3 + phase
    return [x.sin(), x.sin().sign(), torch.randn(size, 16, generator=g)][domain]


def outcome_of(
    losses: list[float], period: int, last: np.ndarray, seen: np.ndarray
) -> MixingOutcome:
    """Put what the loop measured into the words the controller understands."""
    n = len(DOMAINS)
    row = np.ones((1, n))
    instance = MixingInstance(
        present=row > 0,
        prior=row / n,
        weight=row / n,
        source=row < 0,
        unique=row * 1e9,
        limit=np.full((1, n), PERIODS * SEQUENCES),
        floor=np.full((1, n), 2),
        graph=np.zeros((1, n, n)),
        budget=np.array([SEQUENCES]),
        horizon=np.array([PERIODS]),
        effort=np.array([0.2]),
        noise=np.array([0.01]),
        epsilon=np.array([np.inf]),
        penalty=np.array([0.0]),
        worst=np.array([0.0]),
        hidden=np.array([0.0]),
    )
    measured = np.array([losses])
    return MixingOutcome(
        spent=np.array([int(last.sum())]),
        seconds=np.array([0.0]),
        ready=row > 0,
        valid=np.array([bool(np.isfinite(measured).all())]),
        failure=np.array([0]),
        done=np.array([period == PERIODS]),
        losses=measured,
        heldout=measured,
        units=last[None],
        seen=seen[None],
        period=np.array([period]),
        lr=np.array([1.0]),
        lr_left=np.array([float(period < PERIODS)]),
        instance=instance,
    )


def main() -> None:
    """Train under the controller."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/own-loop")
    agent = sys.argv[2] if len(sys.argv) > 2 else "odm"
    problem = DataMixing(n_max=len(DOMAINS))
    spec = Spec(
        problem=problem.id,
        scenario="own loop",
        backend="own loop",
        claimants=DOMAINS,
        n_max=len(DOMAINS),
        unit="sequence",
        horizon=PERIODS,
        batch_size=1,
    )
    controller = Controller(catalogue.make(agent, problem), spec, folder)

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(15, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)

    def loss(x: torch.Tensor) -> torch.Tensor:
        return ((model(x[:, :15]) - x[:, 15:]) ** 2).mean() + 0.05

    def measure() -> list[float]:
        with torch.no_grad():
            return [float(loss(batch(d, 200, 10_000 + d))) for d in range(len(DOMAINS))]

    seen = np.zeros(len(DOMAINS), np.int64)
    if not controller.outcomes:
        controller.tell(outcome_of(measure(), 0, seen, seen))
    for period in range(PERIODS):
        if period < len(controller.outcomes) - 1:
            units = controller.decisions[period].decision.units[0]  # already done: redo, untold
        else:
            units = controller.ask().decision.units[0]
        for d, count in enumerate(units):
            for k in range(int(count) // 4):
                optimiser.zero_grad()
                loss(batch(d, 4, int(seen[d]) + 4 * k)).backward()
                optimiser.step()
        seen = seen + units
        if period == len(controller.outcomes) - 1:
            controller.tell(outcome_of(measure(), period + 1, units, seen))
            split = " ".join(f"{n} {u}" for n, u in zip(DOMAINS, units, strict=True))
            values = " ".join(f"{v:.3f}" for v in controller.outcomes[-1].losses[0])  # type: ignore[attr-defined]
            print(f"period {period + 1}: {split} -> losses {values}")
    controller.close()


if __name__ == "__main__":
    main()
