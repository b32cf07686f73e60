"""What a round of rollouts takes: lanes that decode, stragglers, a barrier, verifier, failures.

Rows are dealt over ``lanes`` (inference engines). A lane is done when it has decoded its tokens at
its throughput *and* its longest rollout has ended; it may fail once and start again. Finished lanes
queue for one verifier, first come first served; when all are verified (the barrier) the policy
update follows, in proportion to the tokens. `simpy_seconds` plays this event by event and is the
reference; `twin_seconds` computes the same by recursion for a batch; they agree to rounding error.

The longest of K log-normal lengths of mean m is ``m exp(s sqrt(2 ln K) - s^2 / 2)``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import numpy as np
import simpy

from allocgym.envs.core.arrays import total
from allocgym.envs.core.errors import AllocgymError


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Prices of a rollout engine, calibrated by `calibration.step_times` to published step times.

    Attributes:
        lanes: inference engines.
        tokens_per_second: decoding throughput of a lane.
        token_seconds: time of one token of a lone rollout (what a straggler pays).
        spread: s, standard deviation of a log length.
        jitter: standard deviation of the log of a lane's slowness in a round.
        verify_seconds: verifier time per rollout.
        train_seconds: update time per token.
        overhead_seconds: of an update (weights sent to the engines, logging).
        failure_probability: of each lane in a round (at most one fails).
        restart_seconds: before a failed lane starts again.
    """

    lanes: int = 8
    tokens_per_second: float = 3400.0
    token_seconds: float = 0.011
    spread: float = 1.0
    jitter: float = 0.05
    verify_seconds: float = 0.001
    train_seconds: float = 1.6e-5
    overhead_seconds: float = 3.0
    failure_probability: float = 0.001
    restart_seconds: float = 20.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name in ("lanes", "tokens_per_second")):
                raise AllocgymError(f"{field.name}: a positive number expected, given {value}")
        if self.failure_probability * self.lanes > 1:
            raise AllocgymError(
                f"failure_probability: at most 1 / lanes expected, given {self.failure_probability}"
            )


@dataclasses.dataclass
class Durations:
    """Drawn durations of one round.

    Attributes:
        decode: ``(lanes, batch)`` seconds until each lane is done.
        fails: ``(lanes, batch)`` bool, the lane loses its work once.
        verify: ``(lanes, batch)`` seconds of the verifier for each lane's rollouts.
        train: ``(batch,)`` seconds of the update (0 where more rounds follow).
    """

    decode: np.ndarray
    fails: np.ndarray
    verify: np.ndarray
    train: np.ndarray


def durations(
    model: CostModel, units: np.ndarray, tokens: np.ndarray, mean_length: np.ndarray,
    slowness: np.ndarray, chance: np.ndarray, update: np.ndarray,
) -> Durations:  # fmt: skip
    """Turn drawn numbers into durations.

    Args:
        model: prices.
        units: ``(n, batch)`` rollouts of each row.
        tokens: ``(n, batch)`` tokens of each row.
        mean_length: ``(n, batch)`` mean tokens of a rollout of each row.
        slowness: ``(lanes, batch)`` standard normal draws.
        chance: ``(batch,)`` uniform draws: whether a lane fails, and which.
        update: ``(batch,)`` tokens the update trains on (0: no update after this round).
    """
    lanes = model.lanes
    n, batch = units.shape
    s = model.spread
    longest = np.sqrt(2 * np.log(np.maximum(units, 1)))
    longest *= s
    longest -= s * s / 2
    np.exp(longest, out=longest)
    longest *= mean_length
    longest *= units > 0
    # Row i is dealt to lane i mod lanes; throughput is balanced over lanes by the dispatcher.
    tail = np.zeros((lanes, batch), longest.dtype)
    for start in range(0, n, lanes):
        part = longest[start : start + lanes]
        np.maximum(tail[: len(part)], part, out=tail[: len(part)])
    work = total(tokens) / (lanes * model.tokens_per_second)
    slow = np.exp(model.jitter * slowness)
    decode = np.maximum(work * slow, tail * model.token_seconds)
    every = total(units) / lanes * model.verify_seconds
    lost = np.floor(chance / max(model.failure_probability, 1e-12))
    fails = np.zeros((lanes, batch), bool)
    if (lost < lanes).any():
        fails = lost == np.arange(lanes)[:, None]
    return Durations(
        decode, fails, np.broadcast_to(every, decode.shape),
        np.where(update > 0, update * model.train_seconds + model.overhead_seconds, 0.0),
    )  # fmt: skip


def twin_seconds(model: CostModel, drawn: Durations) -> np.ndarray:
    """Seconds of each environment's round, ``(batch,)``, by the recursion of a single server."""
    arrive = drawn.decode
    if drawn.fails.any():
        arrive = np.where(drawn.fails, 2 * arrive + model.restart_seconds, arrive)
    arrive = np.sort(arrive, 0)
    free = np.zeros(arrive.shape[1], arrive.dtype)
    # Every lane has the same service time, so the order of service is that of arrival.
    service = drawn.verify[0]
    for lane in range(len(arrive)):
        free = np.maximum(free, arrive[lane]) + service
    return free + drawn.train


def simpy_seconds(model: CostModel, drawn: Durations) -> np.ndarray:
    """Seconds of each environment's round, ``(batch,)``, event by event."""
    return np.array([_play(model, drawn, b) for b in range(drawn.decode.shape[1])])


def _play(model: CostModel, drawn: Durations, b: int) -> float:
    env = simpy.Environment()
    verifier = simpy.Resource(env)

    def lane(index: int) -> Generator[simpy.Event, None, None]:
        length = float(drawn.decode[index, b])
        yield env.timeout(length)
        if drawn.fails[index, b]:
            yield env.timeout(model.restart_seconds)
            yield env.timeout(length)
        with verifier.request() as turn:
            yield turn
            yield env.timeout(float(drawn.verify[index, b]))

    def step() -> Generator[simpy.Event, None, None]:
        yield env.all_of([env.process(lane(i)) for i in range(model.lanes)])
        yield env.timeout(float(drawn.train[b]))

    env.run(until=env.process(step()))
    return float(env.now)
