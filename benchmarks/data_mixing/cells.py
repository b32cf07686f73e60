"""One real run as a cell: a JSON description in, a JSON result out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import Agent, PolicyAgent, rollout
from allocgym.agents.data_mixing.heuristics import OpenLoop
from allocgym.envs.core.builder import make_backend, make_problem

WEIGHT_BLIND = (
    "uniform",
    "natural",
    "temperature-2",
    "temperature-5",
    "replay-5%",
    "replay-10%",
    "replay-25%",
    "replay-50%",
    "random",
    "odm",
)
LOSS_FEATURES = 6


class Shuffled:
    """A policy whose view of the losses is dealt to the wrong domains, anew every period."""

    def __init__(self, policy: Any, seed: int) -> None:
        self.policy = policy
        self.rng = np.random.default_rng(seed)

    def predict(
        self, observation: dict[str, np.ndarray], state: Any = None, *rest: Any
    ) -> tuple[np.ndarray, Any]:
        """Shuffle the loss features among the domains present, then ask the policy."""
        claimants = np.array(observation["claimants"])
        for row in range(len(claimants)):
            there = np.flatnonzero(observation["present"][row])
            dealt = self.rng.permutation(there)
            claimants[row, there, :LOSS_FEATURES] = claimants[row, dealt, :LOSS_FEATURES]
        answer: tuple[np.ndarray, Any] = self.policy.predict(
            {**observation, "claimants": claimants}, state, *rest
        )
        return answer


def file_hash(path: str | Path) -> str:
    """Content hash of an agent file, part of a cell's identity."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def describe(scenario: str, setting: dict[str, Any], agent: str | dict[str, Any], seed: int) -> Any:
    """Describe a cell; runs of agents that cannot see the weights are shared between weights."""
    setting = dict(setting)
    if isinstance(agent, str):
        if agent in WEIGHT_BLIND:
            setting.pop("weights", None)
        agent = {"name": agent}
        if agent["name"].endswith(".zip"):
            agent["sha"] = file_hash(agent["name"])
    elif "file" in agent:
        agent = {**agent, "sha": file_hash(agent["file"])}
    return {"v": 1, "scenario": scenario, "setting": setting, "agent": agent, "seed": seed}


def _agent(description: dict[str, Any], problem: Any, seed: int) -> Agent:
    if "schedule" in description:
        schedule = np.array(description["schedule"])
        padded = np.zeros((len(schedule), problem.n_max))
        padded[:, : schedule.shape[1]] = schedule
        return OpenLoop(problem, padded)
    if "file" in description:
        inner: Any = catalogue.make(description["file"], problem)
        return PolicyAgent(problem, Shuffled(inner.policy, seed), "shuffled")
    return catalogue.make(description["name"], problem)


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Run one real training run.

    Returns:
        Held-out losses before and after, measured losses and shares per period, charged seconds.
    """
    problem: Any = make_problem("data-mixing")
    backend = make_backend(problem, "real", scenario=cell["scenario"], **cell["setting"])
    agent = _agent(cell["agent"], problem, cell["seed"])
    outcomes: list[Any] = rollout(agent, backend, np.array([cell["seed"]]), cell["seed"])
    backend.close()
    n = int(outcomes[0].instance.present[0].sum())
    return {
        "domains": list(backend.spec.claimants[:n]),
        "start": outcomes[0].heldout[0, :n].tolist(),
        "heldout": outcomes[-1].heldout[0, :n].tolist(),
        "losses": [o.losses[0, :n].tolist() for o in outcomes],
        "shares": [(o.units[0, :n] / o.units[0].sum()).tolist() for o in outcomes[1:]],
        "seconds": float(sum(o.seconds[0] for o in outcomes)),
        "valid": bool(all(o.valid.all() for o in outcomes)),
    }
