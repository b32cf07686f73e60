"""What a member's state is and what training does to it: three families, each exact to copy.

A family keeps the state of ``(n, batch)`` members in arrays; copying a member copies its columns, so
weights may be taken over and knobs changed afterwards, which no table of recorded curves can answer.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from allocgym.envs.core.arrays import total
from allocgym.envs.core.record import Columns
from allocgym.simulators.population import multipower

LARGEST = 1e6
"""A member whose loss exceeds this multiple of its start, or is no number, has diverged."""
L = TypeVar("L", bound=Columns)
S = TypeVar("S", bound=Columns)


class Family(ABC, Generic[L, S]):
    """Learning dynamics of members.

    Attributes:
        knobs: hyperparameters that change anything here; asking for others is an error.
        falling: the learning rate of a lineage may only fall (the range of the fit).
    """

    knobs: ClassVar[tuple[str, ...]]
    falling: ClassVar[bool] = False

    @abstractmethod
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Prior range of every knob."""

    @abstractmethod
    def draw(self, draw: Any, periods: int) -> L:
        """Parameters of one instance per environment, ``(..., batch)``.

        Args:
            draw: uniform draws of the batch (`core.draw.Draw`).
            periods: the most there are in an episode.
        """

    @abstractmethod
    def begin(self, law: L, knobs: np.ndarray) -> S:
        """State before training, ``(..., n, batch)``; ``knobs`` are ``(k, n, batch)``."""

    @abstractmethod
    def train(self, law: L, state: S, knobs: np.ndarray, steps: np.ndarray) -> S:
        """State after ``steps`` ``(n, batch)`` more steps with fixed knobs."""

    @abstractmethod
    def loss(self, law: L, state: S) -> np.ndarray:
        """Expected validation loss, ``(n, batch)``; infinity where training diverged."""

    def edge(self, law: L, batch: int) -> np.ndarray:
        """Learning rate beyond which training diverges, ``(batch,)``, infinity where there is none."""
        return np.full(batch, np.inf)


def copied(state: S, donor: np.ndarray) -> S:
    """Take over whole states: member i becomes a copy of ``donor[i]``, all at once (``(n, batch)``)."""
    return state.map(lambda a: np.take_along_axis(a, np.broadcast_to(donor, a.shape), -2))


@dataclasses.dataclass(eq=False)
class Spectrum(Columns):
    """A noisy quadratic.

    Attributes:
        curvature: ``(modes, batch)``.
        start: ``(modes, batch)`` second moment before training.
        noise: ``(modes, batch)`` of the gradient.
        edge: ``(batch,)`` learning rate beyond which training diverges.
        floor: ``(batch,)`` loss that no training removes, over the loss at the start.
    """

    curvature: np.ndarray
    start: np.ndarray
    noise: np.ndarray
    edge: np.ndarray
    floor: np.ndarray


@dataclasses.dataclass(eq=False)
class Modes(Columns):
    """Second moment of every mode of every member, ``(modes, n, batch)``."""

    second: np.ndarray


class NoisyQuadratic(Family[Spectrum, Modes]):
    """A quadratic in its own eigenbasis, trained by SGD with minibatch noise.

    ``E[theta_i^2] <- (1 - eta h_i)^2 E[theta_i^2] + eta^2 c_i / B`` per step, loss ``sum h_i
    E[theta_i^2] / 2`` (Zhang et al. 2019, arXiv 1907.04164, section 3); many steps at fixed rate and
    batch size in closed form. Diverges exactly beyond ``eta h_max = 2``.
    """

    knobs = ("learning_rate", "batch_size")
    modes: ClassVar[int] = 24

    def ranges(self) -> dict[str, tuple[float, float]]:
        """See `Family.ranges`."""
        return {"learning_rate": (1e-3, 1.0), "batch_size": (8.0, 512.0)}

    def draw(self, draw: Any, periods: int) -> Spectrum:
        """Spectra ``h_i = h_max i^-decay``; the edge ``2 / h_max`` lies anywhere in the prior range."""
        index = np.arange(1, self.modes + 1)[:, None]
        edge = np.exp(draw.one("edge", np.log(0.02), np.log(0.6)))
        decay = draw.one("decay", 0.8, 1.6)
        curvature = (2 / edge) * index**-decay
        spread = draw.one("start", -0.5, 0.5)
        noise = np.exp(draw.one("gradient-noise", np.log(0.05), np.log(2.0)))
        floor = np.exp(draw.one("floor", np.log(2e-4), np.log(2e-3)))
        return Spectrum(
            curvature=curvature,
            start=index**spread / self.modes,
            noise=noise * curvature * edge / 2,
            edge=edge,
            floor=floor,
        )

    def begin(self, law: Spectrum, knobs: np.ndarray) -> Modes:
        """See `Family.begin`: every member starts from the same distribution."""
        return Modes(np.repeat(law.start[:, None], knobs.shape[1], 1))

    def train(self, law: Spectrum, state: Modes, knobs: np.ndarray, steps: np.ndarray) -> Modes:
        """See `Family.train`."""
        rate, size = knobs
        contraction = (1 - rate * law.curvature[:, None]) ** 2
        kick = rate**2 * law.noise[:, None] / size
        with np.errstate(over="ignore", invalid="ignore"):
            power = np.exp(np.minimum(steps * np.log(np.maximum(contraction, 1e-300)), 60.0))
            away = np.abs(1 - contraction) > 1e-9
            series = np.where(away, (1 - power) / np.where(away, 1 - contraction, 1.0), steps * 1.0)
            return Modes(np.minimum(state.second * power + kick * series, 1e30))

    def loss(self, law: Spectrum, state: Modes) -> np.ndarray:
        """See `Family.loss`."""
        value = total(law.curvature[:, None] * state.second) / 2
        relative = value / (total(law.curvature * law.start) / 2) + law.floor
        return np.where(relative > LARGEST, np.inf, relative)

    def edge(self, law: Spectrum, batch: int) -> np.ndarray:
        """See `Family.edge`."""
        return law.edge


@dataclasses.dataclass(eq=False)
class Power(Columns):
    """Parameters of the Multi-Power Law, ``(batch,)`` each (see `multipower.MultiPower`).

    Attributes:
        periods: changes of the learning rate that are remembered, the same for the whole batch.
    """

    floor: np.ndarray
    scale: np.ndarray
    alpha: np.ndarray
    drop: np.ndarray
    rate: np.ndarray
    beta: np.ndarray
    gamma: np.ndarray
    periods: int


@dataclasses.dataclass(eq=False)
class Segments(Columns):
    """Stretches of constant learning rate; one begins where the rate changes.

    Attributes:
        fall: ``(slots, n, batch)`` how far the rate fell there.
        now: ``(slots, n, batch)`` the rate after it.
        since: ``(slots, n, batch)`` the rate summed since.
        total: ``(1, n, batch)`` the rate summed over all steps.
        rate: ``(1, n, batch)`` the rate.
        used: ``(1, n, batch)`` slots in use.
    """

    fall: np.ndarray
    now: np.ndarray
    since: np.ndarray
    total: np.ndarray
    rate: np.ndarray
    used: np.ndarray


class MultiPowerFamily(Family[Power, Segments]):
    """Language-model curves under any falling schedule, by the fitted Multi-Power Law.

    State: the changes of the learning rate so far and the rate summed since each (segments of constant
    rate, so a query costs the number of periods). Only inside the fitted range: at most the fitted peak,
    falling only.
    """

    knobs = ("learning_rate",)
    falling = True
    ramp: ClassVar[int] = 12

    def ranges(self) -> dict[str, tuple[float, float]]:
        """See `Family.ranges`."""
        return {"learning_rate": (multipower.LEAST, multipower.PEAK)}

    def draw(self, draw: Any, periods: int) -> Power:
        """On the line through two fitted sizes, a quarter of their distance beyond, jittered by 5 %."""
        laws = list(multipower.fitted().values())
        first, second = (
            np.log([getattr(w, k) for k in multipower.NAMES]) for w in (laws[0], laws[-1])
        )
        along = draw.one("size", -0.25, 1.25)
        values = first[:, None] + (second - first)[:, None] * along
        out = {
            name: np.exp(values[i] + draw.one(f"law-{name}", -0.05, 0.05))
            for i, name in enumerate(multipower.NAMES)
        }
        return Power(**out, periods=periods)

    def begin(self, law: Power, knobs: np.ndarray) -> Segments:
        """After a linear warm-up to each member's first rate (rises count in the law)."""
        peak = knobs[0]
        slots = self.ramp + law.periods + 1
        fall = np.zeros((slots, *peak.shape))
        now = np.full((slots, *peak.shape), 1e-12)
        since = np.zeros((slots, *peak.shape))
        fall[: self.ramp] = -peak / self.ramp
        level = peak * (np.arange(1, self.ramp + 1) / self.ramp)[:, None, None]
        now[: self.ramp] = level
        # Each stretch of the ramp at its mean rate.
        summed = (level - peak / (2 * self.ramp)) * (multipower.WARMUP / self.ramp)
        since[: self.ramp] = np.cumsum(summed[::-1], 0)[::-1]
        return Segments(
            fall=fall,
            now=now,
            since=since,
            total=total(summed)[None],
            rate=peak[None].copy(),
            used=np.full((1, *peak.shape), self.ramp, float),
        )

    def train(self, law: Power, state: Segments, knobs: np.ndarray, steps: np.ndarray) -> Segments:
        """See `Family.train`."""
        rate = knobs[0]
        slot = np.arange(len(state.fall))[:, None, None]
        changed = (state.rate != rate[None]) & (steps[None] > 0)
        here = (slot == state.used) & changed
        used = state.used + changed
        more = rate * steps
        return Segments(
            fall=np.where(here, state.rate - rate, state.fall),
            now=np.where(here, rate, state.now),
            since=state.since + more * (slot < used),
            total=state.total + more,
            rate=np.where(steps[None] > 0, rate[None], state.rate),
            used=used,
        )

    def loss(self, law: Power, state: Segments) -> np.ndarray:
        """See `Family.loss`."""
        x = state.since * state.now**-law.gamma
        response = 1 - (1 + law.rate * x) ** -law.beta
        annealed = total(state.fall * response)
        return np.asarray(
            law.floor + law.scale * state.total[0] ** -law.alpha - law.drop * annealed
        )


FAMILIES: dict[str, Family[Any, Any]] = {
    "quadratic": NoisyQuadratic(),
    "multipower": MultiPowerFamily(),
}
