"""TRACTOR's learners: tabular Q and DQN on its five numbers and seven moves.

Groen et al. 2023 (arXiv 2312.07896): gamma 0.99, a 5-256-7 network, Adam at 0.01, targets synced
every 128 updates, batches of 128. They learn off-policy from rounds of data; here the rounds are
played on the batched twin.
"""

from __future__ import annotations

import copy
import math
import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from allocgym.agents.core import agent_file
from allocgym.agents.core.agent import Agent
from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.learning import held, restore
from allocgym.agents.core.training import Progress
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.problem import PRBSlicing, all_moves
from allocgym.envs.prb_slicing.records import SlicingOutcome

GAMMA = 0.99
WARM_UP = 24
"""Steps of the vector environment before DQN's first update."""
LARGEST = 20_000_000
"""Numbers in a table."""


class QNetwork(nn.Module):
    """State to one value per move."""

    def __init__(self, inputs: int, actions: int, hidden: int = 256) -> None:
        super().__init__()
        self.settings = {"inputs": inputs, "actions": actions, "hidden": hidden}
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, actions)
        )

    def forward(self, state: Tensor) -> Tensor:
        """``(batch, inputs)`` to ``(batch, actions)``."""
        values: Tensor = self.layers(state)
        return values


class MoveAgent(Agent[SlicingOutcome, Shares]):
    """Takes the legal move of highest value in TRACTOR's state, whatever problem it runs in.

    Args:
        problem: radio slicing, with any actions and observation.
        name: shown in tables.
    """

    problem: PRBSlicing

    def __init__(self, problem: PRBSlicing, name: str) -> None:
        super().__init__(problem)
        self.name = name
        self._moves = PRBSlicing(problem.n_max, problem.groups, tractor_compat=True)

    def _check(self, slices: int) -> None:
        if slices != self.problem.n_max:
            raise AllocgymError(
                f"agent {self.name!r}: {slices} slices expected, given {self.problem.n_max} rows"
            )

    @abstractmethod
    def values(self, state: np.ndarray) -> np.ndarray:
        """Values ``(batch, moves)`` of ``(batch, 2 n - 1)`` states."""

    def ask(self) -> Shares:
        """Keep, or move one group."""
        values = self.values(self._moves.encode(self.memory))
        legal: Any = self._moves.legal(self.memory)
        best = np.where(legal, values, -np.inf).argmax(1)
        return self._moves.decode(best, self.memory)


class DQNAgent(MoveAgent):
    """Values by a network."""

    def __init__(self, problem: PRBSlicing, network: QNetwork, name: str = "dqn") -> None:
        super().__init__(problem, name)
        self._check((network.settings["inputs"] + 1) // 2)
        self.network = network.eval()

    @torch.no_grad()
    def values(self, state: np.ndarray) -> np.ndarray:
        """See `MoveAgent.values`."""
        out: np.ndarray = self.network(torch.as_tensor(state)).numpy()
        return out

    def to_file(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Kind, settings and tensors of the agent file."""
        return "dqn", self.network.settings, self.network.state_dict()

    @classmethod
    def from_file(
        cls, problem: PRBSlicing, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> DQNAgent:
        """Rebuild from an agent file."""
        return cls(problem, agent_file.network(name, QNetwork, settings, tensors), name)


class TableAgent(MoveAgent):
    """Values by a table: users, groups of all slices but the last, moves."""

    def __init__(self, problem: PRBSlicing, table: np.ndarray, name: str = "table") -> None:
        super().__init__(problem, name)
        self._check(table.ndim // 2)
        self.table = table

    def values(self, state: np.ndarray) -> np.ndarray:
        """See `MoveAgent.values`."""
        shape = self.table.shape[:-1]
        return np.asarray(self.table[table_index(state, shape, shape[-1] - 1)])

    def to_file(self) -> tuple[str, dict[str, Any], dict[str, Tensor]]:
        """Kind, settings and tensors of the agent file."""
        return "table", {}, {"table": torch.as_tensor(self.table)}

    @classmethod
    def from_file(
        cls, problem: PRBSlicing, settings: Mapping[str, Any], tensors: Any, name: str
    ) -> TableAgent:
        """Rebuild from an agent file."""
        return cls(problem, tensors["table"].numpy(), name)


def table_index(state: np.ndarray, shape: tuple[int, ...], groups: int) -> tuple[np.ndarray, ...]:
    """Cell of the table for TRACTOR's state: whole users and whole groups."""
    n = (len(shape) + 1) // 2
    users = np.rint(state[:, :n] * 10)
    units = np.rint(state[:, n:] * groups)
    whole = np.concatenate([users, units], 1).astype(np.int64)
    return tuple(np.minimum(whole[:, k], shape[k] - 1) for k in range(len(shape)))


def train_dqn(
    env: Any,
    steps: int,
    seed: int = 0,
    hidden: int = 256,
    updates: int = 8,
    gamma: float = GAMMA,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[QNetwork, dict[str, Any]]:
    """Double DQN on a vector environment with TRACTOR's state and moves.

    Args:
        env: an `AllocationVectorEnv` with ``tractor_compat=True``.
        steps: steps of the vector environment.
        seed: of weights, exploration and episodes.
        hidden: width.
        updates: gradient steps after each step of the vector environment.
        gamma: discount.
        progress: told (steps of the vector environment, mean reward).
        checkpoint: where it goes on from, bit for bit, and keeps where it stands.
    """
    if env.problem.actions != "moves" or env.problem.observation != "tractor":
        raise AllocgymError("env: tractor_compat=True expected")
    checkpoint = checkpoint or Checkpoint()
    begun = time.perf_counter() - checkpoint.seconds
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n, inputs = env.num_envs, env.single_observation_space.shape[0]
    actions = int(env.single_action_space.n)
    online = QNetwork(inputs, actions, hidden)
    target = copy.deepcopy(online)
    optimiser = torch.optim.Adam(online.parameters(), lr=1e-3)
    kept = max(200_000 // n, 8)
    store: list[tuple[np.ndarray, ...]] = []
    state, _ = env.reset(seed=seed)
    mask = env.action_masks()
    first, count, level, spread = 0, 0, 0.0, 1.0
    learned = {"online": online, "target": target, "optimiser": optimiser}
    if checkpoint.state is not None:
        first, count, level, spread, state, mask, store, rng = checkpoint.state["reached"]
        env.set_state(checkpoint.state["env"])
        restore(learned, checkpoint.state)
    for step in range(first, steps):
        explore = max(1.0 - 2 * step / steps, 0.05)
        with torch.no_grad():
            q = online(torch.as_tensor(state)).numpy()
        greedy = np.where(mask, q, -np.inf).argmax(1)
        random = np.where(mask, rng.random(mask.shape), -1).argmax(1)
        action = np.where(rng.random(n) < explore, random, greedy)
        after, reward, done, _, info = env.step(action)
        following = env.action_masks()
        final = info.get("final_obs", after)
        if step < WARM_UP:
            # Values are sums of a hundred scores that hardly differ: what is learned is how each
            # score departs from a random walk's.
            level += (float(reward.mean()) - level) / (step + 1)
            spread += (float(reward.std()) - spread) / (step + 1)
        store.append((state, action, reward.astype(np.float32), final, following, done))
        if len(store) > kept:
            store.pop(0)
        state, mask = after, following
        for _ in range(updates if step >= WARM_UP else 0):
            parts = [store[k] for k in rng.integers(0, len(store), 2)]
            rows = rng.integers(0, n, (2, 256))
            s, a, r, s2, m2, _d = (
                torch.as_tensor(np.concatenate([p[k][i] for p, i in zip(parts, rows, strict=True)]))
                for k in range(6)
            )
            with torch.no_grad():
                best = online(s2).masked_fill(~m2, -torch.inf).argmax(1, keepdim=True)
                # The horizon is a cut, not an end: the score goes on.
                wanted = (r - level) / spread + gamma * target(s2).gather(1, best)[:, 0]
            loss = nn.functional.smooth_l1_loss(online(s).gather(1, a[:, None])[:, 0], wanted)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            count += 1
            if count % 128 == 0:
                target.load_state_dict(online.state_dict())
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * (1 - 0.9 * step / steps)
        if progress is not None:
            progress(step + 1, float(reward.mean()))
        reached = (step + 1, count, level, spread, state, mask, store, rng)
        checkpoint.keep(
            lambda reached=reached: {  # type: ignore[misc]
                "reached": reached,
                "env": env.get_state(),
                **held(learned),
            }
        )
    return online.eval(), {
        "trainer": "DQN",
        "steps": steps * n,
        "updates": count,
        "seed": seed,
        "gamma": gamma,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def train_table(
    env: Any,
    steps: int,
    seed: int = 0,
    users: int = 6,
    gamma: float = GAMMA,
    checkpoint: Checkpoint | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Tabular Q over (users, groups of all slices but the last), learned off-policy.

    Each (state, move) keeps the mean of its rewards and transitions are known (a move moves one
    group), so the table is the fixed point of value iteration on mean rewards.
    """
    checkpoint = checkpoint or Checkpoint()
    begun = time.perf_counter() - checkpoint.seconds
    rng = np.random.default_rng(seed)
    groups, n = env.problem.groups, env.problem.n_max
    actions = int(env.single_action_space.n)
    shape = (*[users + 1] * n, *[groups + 1] * (n - 1))
    if math.prod(shape) * actions > LARGEST:
        raise AllocgymError(
            f"slices: a table of at most {LARGEST} numbers expected, {n} slices of {groups} groups "
            f"need {math.prod(shape) * actions}"
        )
    total = np.zeros(shape)
    seen = np.zeros(shape)
    first = 0
    _state, _ = env.reset(seed=seed)
    if checkpoint.state is not None:
        first, total, seen, rng = checkpoint.state["reached"]
        env.set_state(checkpoint.state["env"])
    for step in range(first, steps):
        mask = env.action_masks()
        action = np.where(mask, rng.random(mask.shape), -1).argmax(1)
        after, reward, _done, _, info = env.step(action)
        # The score depends on the split that was in force: the state the move led to.
        cell = table_index(info.get("final_obs", after), shape, groups)
        np.add.at(total, cell, reward)
        np.add.at(seen, cell, 1)
        reached = (step + 1, total, seen, rng)
        checkpoint.keep(
            lambda reached=reached: {"reached": reached, "env": env.get_state()}  # type: ignore[misc]
        )
    mean = np.divide(total, seen, out=np.full(shape, np.nan), where=seen > 0)
    table = np.full((*shape, actions), -1e9)
    for counts in np.ndindex(*shape[:n]):
        if np.isfinite(mean[counts]).any():
            table[counts] = _iterate(mean[counts], groups, actions, gamma)
    return table, {
        "trainer": "tabular Q",
        "steps": steps * env.num_envs,
        "seed": seed,
        "gamma": gamma,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def _iterate(mean: np.ndarray, groups: int, actions: int, gamma: float) -> np.ndarray:
    """Value iteration on one mix's table of mean scores by split, ``mean.shape + (actions,)``."""
    n = mean.ndim + 1
    q = np.full((*mean.shape, actions), -1e9)
    value = np.zeros(mean.shape)
    cells = [c for c in np.ndindex(*mean.shape) if min(c) >= 1 and groups - sum(c) >= 1]
    filled = np.where(np.isfinite(mean), mean, np.nanmin(mean))
    leads: list[tuple[tuple[int, ...], int, tuple[int, ...]]] = []
    for cell in cells:
        units = [*cell, groups - sum(cell)]
        leads.append((cell, 0, cell))
        for k, (giver, taker) in enumerate(all_moves(n), start=1):
            if units[giver] > 1:
                after = list(units)
                after[giver] -= 1
                after[taker] += 1
                leads.append((cell, k, tuple(after[:-1])))
    source = tuple(np.array([c[0][k] for c in leads]) for k in range(n - 1))
    move = np.array([c[1] for c in leads])
    goal = tuple(np.array([c[2][k] for c in leads]) for k in range(n - 1))
    for _ in range(400):
        q[(*source, move)] = filled[goal] + gamma * value[goal]
        value = q.max(-1)
    return q
