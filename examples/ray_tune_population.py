"""Put one of our controllers in charge of a Ray Tune experiment that knows nothing of it.

The experiment below is a user's own: a trainable that fits a line by gradient descent and saves
checkpoints. Its trials become the members of a population: the controller says whose checkpoint each
goes on from, with which learning rate, and how many results it shall report before it is asked again.

Run: python examples/ray_tune_population.py [AGENT] [FOLDER]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ray import tune

from allocgym.agents.core import catalogue
from allocgym.agents.core.controller import Controller
from allocgym.envs.population.problem import Population
from allocgym.envs.population.records import Plan, PopulationOutcome
from allocgym.real_backend.core.cluster import connect
from allocgym.real_backend.population.experiment import Experiment
from allocgym.real_backend.population.tune import PopulationScheduler

MEMBERS, INTERVAL, HORIZON = 4, 3, 4
RANGE = (1e-3, 1.0)


class Line(tune.Trainable):
    """A user's trainable: ``setup``, ``step``, ``save_checkpoint``, ``load_checkpoint``."""

    def setup(self, config: dict[str, Any]) -> None:
        """Data and an untrained model."""
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(256, 8))
        self.y = self.x @ rng.normal(size=8) + 0.1 * rng.normal(size=256)
        self.weights = np.zeros(8)
        self.config = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Lets Tune use the process for another trial or configuration."""
        self.setup(new_config)
        return True

    def step(self) -> dict[str, float]:
        """Ten steps of gradient descent, then the loss on data that was held out."""
        for _ in range(10):
            error = self.x[:128] @ self.weights - self.y[:128]
            self.weights -= self.config["learning_rate"] * self.x[:128].T @ error / 128
        error = self.x[128:] @ self.weights - self.y[128:]
        return {"loss": float(error @ error / 128)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Everything that training changes."""
        Path(checkpoint_dir, "weights.json").write_text(json.dumps(self.weights.tolist()))

    def load_checkpoint(self, checkpoint_dir: str) -> None:
        """Go on from a checkpoint, of this trial or of the one it copies."""
        self.weights = np.array(json.loads(Path(checkpoint_dir, "weights.json").read_text()))


def run(agent: str, folder: Path) -> tuple[PopulationScheduler, Controller]:
    """Run the experiment under an agent; return scheduler and controller for what they recorded."""
    problem = Population(n_max=MEMBERS)
    controllers: list[Controller] = []

    def decide(outcome: PopulationOutcome) -> Plan | None:
        if not controllers:
            controllers.append(
                Controller(catalogue.make(agent, problem), scheduler.spec, folder / "controller")
            )
        controllers[0].tell(outcome)
        return None if outcome.done[0] else controllers[0].ask().decision

    experiment = Experiment({"learning_rate": RANGE}, MEMBERS, INTERVAL, HORIZON, metric="loss")
    scheduler = PopulationScheduler(decide, problem, experiment)
    tune.Tuner(
        Line,
        param_space={"learning_rate": tune.loguniform(*RANGE)},
        tune_config=tune.TuneConfig(num_samples=MEMBERS, scheduler=scheduler, reuse_actors=True),
        run_config=tune.RunConfig(name="line", storage_path=str(folder.resolve()), verbose=0),
    ).fit()
    controllers[0].journal.close()
    return scheduler, controllers[0]


def main() -> None:
    """Run it and say who copied whom."""
    agent = sys.argv[1] if len(sys.argv) > 1 else "pbt-1"
    folder = Path(sys.argv[2] if len(sys.argv) > 2 else "runs/ray-tune-population")
    connect()
    scheduler, controller = run(agent, folder)
    for keyed, outcome in zip(controller.decisions, controller.outcomes[1:], strict=True):
        plan = keyed.decision
        copies = [f"{i}<-{d}" for i, d in enumerate(plan.donor[0]) if i != d]
        print(
            f"period {keyed.period + 1}: steps {plan.steps[0].tolist()}  "
            f"copies {' '.join(copies) or '-'}  losses {np.round(outcome.scores[0], 4).tolist()}"
        )
    print(scheduler.debug_string())


if __name__ == "__main__":
    main()
