"""What a member's state is and what training does to it: three families, each exact to copy.

A family keeps the state of ``(n, batch)`` members in arrays; copying a member copies its columns, so
weights may be taken over and knobs changed afterwards, which no table of recorded curves can answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from allocgym.simulators.population import multipower

Arrays = dict[str, np.ndarray]
LARGEST = 1e6
"""A member whose loss exceeds this multiple of its start, or is no number, has diverged."""


class Family(ABC):
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
    def draw(self, draw: Any, horizon: int) -> Arrays:
        """Parameters of one instance per environment, each ``(..., batch)``."""

    @abstractmethod
    def begin(self, parameters: Arrays, knobs: np.ndarray, steps: np.ndarray) -> Arrays:
        """State before training, ``(..., n, batch)``; ``knobs`` are ``(k, n, batch)``."""

    @abstractmethod
    def train(
        self, parameters: Arrays, state: Arrays, knobs: np.ndarray, steps: np.ndarray
    ) -> Arrays:
        """State after ``steps`` ``(n, batch)`` more steps with fixed knobs."""

    @abstractmethod
    def loss(self, parameters: Arrays, state: Arrays) -> np.ndarray:
        """Expected validation loss, ``(n, batch)``; infinity where training diverged."""

    def edge(self, parameters: Arrays, batch: int) -> np.ndarray:
        """Learning rate beyond which training diverges, ``(batch,)``, infinity where there is none."""
        return np.full(batch, np.inf)


def copied(state: Arrays, donor: np.ndarray) -> Arrays:
    """Take over whole states: member i becomes a copy of ``donor[i]``, all at once (``(n, batch)``)."""
    out = {}
    for name, array in state.items():
        index = np.broadcast_to(donor, array.shape)
        out[name] = np.take_along_axis(array, index, -2)
    return out


class NoisyQuadratic(Family):
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

    def draw(self, draw: Any, horizon: int) -> Arrays:
        """Spectra ``h_i = h_max i^-decay``; the edge ``2 / h_max`` lies anywhere in the prior range."""
        index = np.arange(1, self.modes + 1)[:, None]
        edge = np.exp(draw.one("edge", np.log(0.02), np.log(0.6)))
        decay = draw.one("decay", 0.8, 1.6)
        curvature = (2 / edge) * index**-decay
        spread = draw.one("start", -0.5, 0.5)
        noise = np.exp(draw.one("gradient-noise", np.log(0.05), np.log(2.0)))
        floor = np.exp(draw.one("floor", np.log(2e-4), np.log(2e-3)))
        return {
            "curvature": curvature,
            "edge": edge,
            "floor": floor,
            "start": index**spread / self.modes,
            "noise": noise * curvature * edge / 2,
        }

    def begin(self, parameters: Arrays, knobs: np.ndarray, steps: np.ndarray) -> Arrays:
        """See `Family.begin`: every member starts from the same distribution."""
        start = parameters["start"][:, None]
        return {"second": np.repeat(start, knobs.shape[1], 1)}

    def train(
        self, parameters: Arrays, state: Arrays, knobs: np.ndarray, steps: np.ndarray
    ) -> Arrays:
        """See `Family.train`."""
        rate, size = knobs
        contraction = (1 - rate * parameters["curvature"][:, None]) ** 2
        kick = rate**2 * parameters["noise"][:, None] / size
        with np.errstate(over="ignore", invalid="ignore"):
            power = np.exp(np.minimum(steps * np.log(np.maximum(contraction, 1e-300)), 60.0))
            away = np.abs(1 - contraction) > 1e-9
            series = np.where(away, (1 - power) / np.where(away, 1 - contraction, 1.0), steps * 1.0)
            return {"second": np.minimum(state["second"] * power + kick * series, 1e30)}

    def loss(self, parameters: Arrays, state: Arrays) -> np.ndarray:
        """See `Family.loss`."""
        curvature = parameters["curvature"][:, None]
        value = (curvature * state["second"]).sum(0) / 2
        start = (parameters["curvature"] * parameters["start"]).sum(0) / 2
        relative = value / start + parameters["floor"]
        return np.where(relative > LARGEST, np.inf, relative)

    def edge(self, parameters: Arrays, batch: int) -> np.ndarray:
        """See `Family.edge`."""
        return parameters["edge"]


class MultiPowerFamily(Family):
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

    def draw(self, draw: Any, horizon: int) -> Arrays:
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
        out["horizon"] = np.full(len(along), horizon)
        return out

    def begin(self, parameters: Arrays, knobs: np.ndarray, steps: np.ndarray) -> Arrays:
        """After a linear warm-up to each member's first rate (rises count in the law)."""
        peak = knobs[0]
        slots = self.ramp + int(parameters["horizon"].max()) + 1
        fall = np.zeros((slots, *peak.shape))
        now = np.full((slots, *peak.shape), 1e-12)
        since = np.zeros((slots, *peak.shape))
        fall[: self.ramp] = -peak / self.ramp
        level = peak * (np.arange(1, self.ramp + 1) / self.ramp)[:, None, None]
        now[: self.ramp] = level
        # Each stretch of the ramp at its mean rate.
        summed = (level - peak / (2 * self.ramp)) * (multipower.WARMUP / self.ramp)
        since[: self.ramp] = np.cumsum(summed[::-1], 0)[::-1]
        return {
            "fall": fall,
            "now": now,
            "since": since,
            "total": summed.sum(0)[None],
            "rate": peak[None].copy(),
            "used": np.full((1, *peak.shape), self.ramp, float),
        }

    def train(
        self, parameters: Arrays, state: Arrays, knobs: np.ndarray, steps: np.ndarray
    ) -> Arrays:
        """See `Family.train`."""
        rate = knobs[0]
        slot = np.arange(len(state["fall"]))[:, None, None]
        used = state["used"]
        changed = (state["rate"] != rate[None]) & (steps[None] > 0)
        here = (slot == used) & changed
        fall = np.where(here, state["rate"] - rate, state["fall"])
        now = np.where(here, rate, state["now"])
        used = used + changed
        more = rate * steps
        since = state["since"] + more * (slot < used)
        held = np.where(steps[None] > 0, rate[None], state["rate"])
        return {
            "fall": fall,
            "now": now,
            "since": since,
            "total": state["total"] + more,
            "rate": held,
            "used": used,
        }

    def loss(self, parameters: Arrays, state: Arrays) -> np.ndarray:
        """See `Family.loss`."""
        p = parameters
        x = state["since"] * state["now"] ** -p["gamma"]
        response = 1 - (1 + p["rate"] * x) ** -p["beta"]
        annealed = (state["fall"] * response).sum(0)
        return np.asarray(
            p["floor"] + p["scale"] * state["total"][0] ** -p["alpha"] - p["drop"] * annealed
        )


FAMILIES: dict[str, Family] = {"quadratic": NoisyQuadratic(), "multipower": MultiPowerFamily()}
