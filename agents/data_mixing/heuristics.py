"""Rules for data mixing: fixed splits, published online mixers."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.envs.core import randomness
from allocgym.envs.core.arrays import columns
from allocgym.envs.core.contracts import Shares
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingOutcome

NATS = float(np.log(2.0))


class MixingAgent(Agent[MixingOutcome, Shares]):
    """A rule that names shares; floors, limits and rounding are the problem's."""

    problem: DataMixing

    @abstractmethod
    def shares(self) -> np.ndarray:
        """``(batch, n)`` shares of the coming period, each row summing to 1."""

    def ask(self) -> Shares:
        """Round the shares to whole units."""
        return self.problem.round(self.shares(), self.memory)


def _normal(weights: np.ndarray) -> np.ndarray:
    return weights / weights.sum(1, keepdims=True)


class Uniform(MixingAgent):
    """The same share for every domain."""

    name = "uniform"

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        return _normal(self.outcome.instance.present.astype(float))


class Natural(MixingAgent):
    """Shares of the natural corpus (the prior)."""

    name = "natural"

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        return self.outcome.instance.prior


class Weights(MixingAgent):
    """Shares equal to the objective's weights: spend where the score is."""

    name = "weights"

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        return self.outcome.instance.weight


class Temperature(MixingAgent):
    """``p ~ prior ** (1 / tau)``: 1 is natural, infinity uniform."""

    def __init__(self, problem: DataMixing, tau: float = 2.0) -> None:
        super().__init__(problem)
        self.tau = tau
        self.name = f"temperature-{tau:g}"

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        return _normal(self.outcome.instance.prior ** (1 / self.tau))


class ConstantReplay(MixingAgent):
    """A fixed share for the source domains together, equal among them; the rest likewise.

    Where nothing is a source there is nothing to replay and this is uniform.
    """

    def __init__(self, problem: DataMixing, replay: float = 0.25) -> None:
        super().__init__(problem)
        self.replay = replay
        self.name = f"replay-{100 * replay:g}%"

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        inst = self.outcome.instance
        source, new = inst.source, inst.present & ~inst.source
        old = source.sum(1, keepdims=True)
        replay = np.where(old > 0, self.replay, 0.0)
        return source * replay / np.maximum(old, 1) + new * (1 - replay) / new.sum(1, keepdims=True)


class Static(MixingAgent):
    """Any fixed split: ``(n,)`` or ``(batch, n)`` shares."""

    name = "static"

    def __init__(self, problem: DataMixing, split: np.ndarray, name: str = "static") -> None:
        super().__init__(problem)
        self.split = np.atleast_2d(split)
        self.name = name

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        inst = self.outcome.instance
        padded = np.zeros(inst.present.shape)
        padded[:, : self.split.shape[1]] = self.split
        return _normal(padded * inst.present)


class OpenLoop(MixingAgent):
    """Replays a schedule of shares, ``(horizon, batch, n)`` or ``(horizon, n)``, come what may."""

    def __init__(self, problem: DataMixing, schedule: np.ndarray, name: str = "open loop") -> None:
        super().__init__(problem)
        self.schedule = schedule
        self.name = name

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        inst = self.outcome.instance
        row = self.schedule[min(int(self.outcome.period[0]), len(self.schedule) - 1)]
        return _normal(np.broadcast_to(row, inst.present.shape) * inst.present)


class RandomMixer(MixingAgent):
    """A fresh uniform draw from the simplex every period."""

    name = "random"

    def _start(self) -> None:
        self._stream = randomness.stream(
            self.seed + np.arange(self.spec.batch_size), "random mixer", self.spec.n_max
        )

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        u = columns(randomness.uniform(self._stream, self.outcome.period))
        return _normal(-np.log(u) * self.outcome.instance.present)


class ODM(MixingAgent):
    """Online Data Mixing (Albalak et al. 2023), the update of its released code.

    ``R_i <- 0.9 R_i + 0.1 exp(loss_i)`` with losses in nats,
    ``eps_t = min(1/K, sqrt(ln K / (K t)))``,
    ``p_i = (1 - K eps_t) exp(eps_{t-1} R_i) / sum + eps_t``.
    """

    name = "odm"

    def _start(self) -> None:
        self._reward: np.ndarray | None = None

    def _heard(self) -> None:
        new = np.exp(np.minimum(self.outcome.losses * NATS, 20.0))
        self._reward = 0.1 * new if self._reward is None else 0.9 * self._reward + 0.1 * new

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        assert self._reward is not None
        present = self.outcome.instance.present
        k = present.sum(1, keepdims=True)
        t = self.outcome.period[:, None] + 1
        return odm_update(self._reward, present, k, t)


def odm_update(reward: np.ndarray, present: np.ndarray, k: np.ndarray, t: np.ndarray) -> np.ndarray:
    """One update of ODM: ``(batch, n)`` probabilities at round ``t`` (from 1)."""

    def explore(rounds: np.ndarray) -> np.ndarray:
        return np.minimum(1 / k, np.sqrt(np.log(k) / (k * rounds)))

    now, before = explore(t), explore(np.maximum(t - 1, 1))
    score = np.where(present, before * reward, -np.inf)
    p = np.exp(score - score.max(1, keepdims=True))
    return (1 - k * now) * p / p.sum(1, keepdims=True) + now * present


class SkillIt(MixingAgent):
    """Skill-It (Chen et al. 2023): ``w_i ~ exp(eta sum over the last 3 evaluations of A_i. L)``.

    ``A`` is the known skill graph (0.5 off the diagonal, 1 on it); without one it reduces to
    weights by the domain's own loss. Losses enter in nats.
    """

    name = "skill-it"

    def __init__(self, problem: DataMixing, eta: float = 0.5, window: int = 3) -> None:
        super().__init__(problem)
        self.eta = eta
        self.window = window

    def _start(self) -> None:
        self._losses: list[np.ndarray] = []

    def _heard(self) -> None:
        self._losses = [*self._losses, self.outcome.losses * NATS][-self.window :]

    def shares(self) -> np.ndarray:
        """See `MixingAgent.shares`."""
        inst = self.outcome.instance
        total = sum(self._losses) * inst.present
        graph = 0.5 * (inst.graph > 0)
        influence = total + np.einsum("bij,bj->bi", graph, total)
        score = np.where(inst.present, self.eta * influence, -np.inf)
        return _normal(np.exp(score - score.max(1, keepdims=True)))
