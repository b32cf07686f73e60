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
import math
from collections.abc import Generator

import numpy as np
import simpy

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.kernels import kernel
from allocgym.envs.core.scenario import Checked, within
from allocgym.simulators.rollout_budget.scenario import fit


@dataclasses.dataclass(frozen=True)
class CostModel(Checked):
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

    lanes: int = within(8, 1, 1024)
    tokens_per_second: float = within(3400.0, 1e-3, 1e12)
    token_seconds: float = within(0.011, 0, 1e6)
    spread: float = within(1.0, 0, 4)
    jitter: float = within(0.05, 0, 2)
    verify_seconds: float = within(0.001, 0, 1e6)
    train_seconds: float = within(1.6e-5, 0, 1e6)
    overhead_seconds: float = within(3.0, 0, 1e6)
    failure_probability: float = within(0.001, 0, 1)
    restart_seconds: float = within(20.0, 0, 1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.failure_probability * self.lanes > 1:
            raise AllocgymError(
                f"failure_probability: at most 1 / lanes expected, given {self.failure_probability}"
            )


def calibrated(model: str) -> CostModel:
    """Prices fitted to the published step times of a model, ``"1.5B"`` or ``"7B"``."""
    cost = fit("cost")
    prices = cost[model]
    return CostModel(
        lanes=int(cost["lanes"]),
        spread=float(cost["spread"]),
        tokens_per_second=prices["tokens_per_second"],
        token_seconds=prices["token_seconds"],
        train_seconds=prices["train_seconds"],
        overhead_seconds=prices["overhead_seconds"],
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
    model: CostModel,
    units: np.ndarray,
    tokens: np.ndarray,
    mean_length: np.ndarray,
    slowness: np.ndarray,
    chance: np.ndarray,
    update: np.ndarray,
) -> Durations:
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
    decode, fails = np.empty_like(slowness), np.zeros(slowness.shape, bool)
    verify = np.empty_like(slowness)
    _fill(
        units,
        tokens,
        mean_length,
        slowness,
        chance,
        model.spread,
        model.jitter,
        1 / (model.lanes * model.tokens_per_second),
        model.token_seconds,
        model.verify_seconds / model.lanes,
        max(model.failure_probability, 1e-12),
        decode,
        fails,
        verify,
    )
    train = np.where(update > 0, update * model.train_seconds + model.overhead_seconds, 0.0)
    return Durations(decode, fails, verify, train)


@kernel
def _fill(
    units: np.ndarray,
    tokens: np.ndarray,
    mean: np.ndarray,
    slowness: np.ndarray,
    chance: np.ndarray,
    spread: float,
    jitter: float,
    per_token: float,
    token_seconds: float,
    per_rollout: float,
    failure: float,
    decode: np.ndarray,
    fails: np.ndarray,
    verify: np.ndarray,
) -> None:
    n, batch = units.shape
    lanes = len(decode)
    number = decode.dtype.type
    two, s, half = number(2), number(spread), number(spread * spread / 2)
    work, every = np.zeros(batch, decode.dtype), np.zeros(batch, decode.dtype)
    tail = np.zeros(decode.shape, decode.dtype)
    for j in range(n):
        # Row j is dealt to lane j mod lanes; throughput is balanced over lanes by the dispatcher.
        lane = j % lanes
        for i in range(batch):
            work[i] += tokens[j, i]
            every[i] += units[j, i]
            if units[j, i] > 0:
                high = s * math.sqrt(two * math.log(number(units[j, i]))) - half
                longest = math.exp(high) * mean[j, i]
                tail[lane, i] = max(tail[lane, i], longest)
    for k in range(lanes):
        for i in range(batch):
            slow = math.exp(number(jitter) * slowness[k, i])
            decode[k, i] = max(work[i] * per_token * slow, tail[k, i] * token_seconds)
            verify[k, i] = every[i] * per_rollout
    for i in range(batch):
        lost = int(chance[i] / failure) if chance[i] < failure * lanes else lanes
        if lost < lanes:
            fails[lost, i] = True


def twin_seconds(model: CostModel, drawn: Durations) -> np.ndarray:
    """Seconds of each environment's round, ``(batch,)``, by the recursion of a single server."""
    free = np.empty(drawn.decode.shape[1], drawn.decode.dtype)
    _serve(drawn.decode, drawn.fails, drawn.verify, model.restart_seconds, free)
    return free + drawn.train


@kernel
def _serve(
    decode: np.ndarray, fails: np.ndarray, verify: np.ndarray, restart: float, free: np.ndarray
) -> None:
    lanes, batch = decode.shape
    arrive = np.empty(lanes, decode.dtype)
    for i in range(batch):
        for k in range(lanes):
            at = 2 * decode[k, i] + restart if fails[k, i] else decode[k, i]
            # Insertion sort: lanes are few.
            place = k
            while place > 0 and arrive[place - 1] > at:
                arrive[place] = arrive[place - 1]
                place -= 1
            arrive[place] = at
        free[i] = 0
        # Every lane has the same service time, so the order of service is that of arrival.
        for k in range(lanes):
            free[i] = max(free[i], arrive[k]) + verify[0, i]


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
