"""What a period of training takes: seconds of a pool of accelerators.

A period is ``chunks`` pieces of work. A loader prepares each (slower domains take longer) and puts
it into a prefetch buffer; the pool trains on it; a failure loses the period's work since the last
checkpoint and costs a restart. Then every domain is evaluated and a checkpoint is written.

`simpy_seconds` plays that event by event and is the reference; `twin_seconds` computes the same
quantity for a whole batch with the max-plus recursion of a bounded buffer. They agree to rounding
error on the same draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import numpy as np
import simpy

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.kernels import kernel
from allocgym.envs.core.scenario import Checked, within


@dataclasses.dataclass(frozen=True)
class CostModel(Checked):
    """Nominal prices of a small cluster; they order decisions, they are not measurements.

    Attributes:
        tokens_per_unit: tokens in a budget unit.
        accelerators: devices in the pool.
        tokens_per_second: training speed of one device.
        load_tokens_per_second: speed of the loader on an average domain.
        chunks: pieces a period is cut into.
        prefetch: chunks the loader may be ahead.
        jitter: standard deviation of the logarithm of each duration.
        evaluation_seconds: to evaluate one domain.
        checkpoint_seconds: to write a checkpoint.
        failure_probability: of a failure in each chunk (one a period at most).
        restart_seconds: to restart after a failure.
    """

    tokens_per_unit: float = within(128.0, 1, 1e9)
    accelerators: int = within(4, 1, 10**6)
    tokens_per_second: float = within(15_000.0, 1e-3, 1e12)
    load_tokens_per_second: float = within(90_000.0, 1e-3, 1e12)
    chunks: int = within(4, 1, 64)
    prefetch: int = within(2, 1, 64)
    jitter: float = within(0.1, 0, 2)
    evaluation_seconds: float = within(0.01, 0, 1e6)
    checkpoint_seconds: float = within(0.02, 0, 1e6)
    failure_probability: float = within(0.002, 0, 1)
    restart_seconds: float = within(5.0, 0, 1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.failure_probability * self.chunks > 1:
            raise AllocgymError(
                f"failure_probability: at most 1 / chunks expected, given {self.failure_probability}"
            )


@dataclasses.dataclass
class Durations:
    """Drawn durations of one period.

    Attributes:
        load: ``(chunks, batch)`` seconds to prepare each chunk.
        train: ``(chunks, batch)`` seconds the pool takes for each chunk.
        fails: ``(chunks, batch)`` bool, the pool fails while on this chunk.
        fixed: ``(batch,)`` seconds of evaluation and checkpoint at the end.
    """

    load: np.ndarray
    train: np.ndarray
    fails: np.ndarray
    fixed: np.ndarray


def durations(
    model: CostModel,
    units: np.ndarray,
    slowness: np.ndarray,
    domains: np.ndarray,
    loading: np.ndarray,
    training: np.ndarray,
    chance: np.ndarray,
) -> Durations:
    """Turn a decision and its draws into durations.

    Args:
        model: prices.
        units: ``(n, batch)`` units of each domain.
        slowness: ``(n, batch)`` loading time of each domain relative to the average one.
        domains: ``(batch,)`` number of domains to evaluate.
        loading: ``(chunks, batch)`` standard normal draws.
        training: the same, for the pool.
        chance: ``(batch,)`` uniform draw: it falls into the slice of at most one chunk, which fails.
    """
    jitter = loading.dtype.type(model.jitter)
    load, train = np.exp(jitter * loading), np.exp(jitter * training)
    fails = np.zeros(loading.shape, bool)
    tokens = model.tokens_per_unit / model.chunks
    _fill(
        units,
        slowness,
        chance,
        model.failure_probability,
        tokens / model.load_tokens_per_second,
        tokens / (model.tokens_per_second * model.accelerators),
        load,
        train,
        fails,
    )
    return Durations(
        load, train, fails, domains * model.evaluation_seconds + model.checkpoint_seconds
    )


@kernel
def _fill(
    units: np.ndarray,
    slowness: np.ndarray,
    chance: np.ndarray,
    failure: float,
    load_second: float,
    train_second: float,
    load: np.ndarray,
    train: np.ndarray,
    fails: np.ndarray,
) -> None:
    """Turn factors of durations into durations, in place, and mark the chunk that fails."""
    n, batch = units.shape
    chunks = len(load)
    amount, slow = np.zeros(batch), np.zeros(batch)
    for j in range(n):
        for i in range(batch):
            amount[i] += units[j, i]
            slow[i] += units[j, i] * slowness[j, i]
    for k in range(chunks):
        for i in range(batch):
            load[k, i] *= slow[i] * load_second
            train[k, i] *= amount[i] * train_second
    for i in range(batch):
        if chance[i] < failure * chunks:
            fails[min(int(chance[i] / failure), chunks - 1), i] = True


def twin_seconds(model: CostModel, d: Durations) -> np.ndarray:
    """Seconds of the period, ``(batch,)``, by recursion over chunks.

    With buffer size P: chunk k is put when it is loaded and chunk k - P has been taken, taken when
    it is put and chunk k - 1 is trained, and trained after that.
    """
    seconds = np.empty(d.load.shape[1])
    _recur(d.load, d.train, d.fails, d.fixed, model.prefetch, model.restart_seconds, seconds)
    return seconds


@kernel
def _recur(
    load: np.ndarray,
    train: np.ndarray,
    fails: np.ndarray,
    fixed: np.ndarray,
    prefetch: int,
    restart: float,
    seconds: np.ndarray,
) -> None:
    chunks, batch = load.shape
    taken = np.empty(chunks)
    for i in range(batch):
        put = trained = work = 0.0
        for k in range(chunks):
            put += load[k, i]
            if k >= prefetch:
                put = max(put, taken[k - prefetch])
            taken[k] = max(put, trained)
            work += train[k, i]
            trained = taken[k] + train[k, i]
            if fails[k, i]:
                trained += restart + work
        seconds[i] = trained + fixed[i]


def simpy_seconds(model: CostModel, d: Durations) -> np.ndarray:
    """Seconds of the period, ``(batch,)``, event by event, one environment after another."""
    return np.array([_play(model, d, column) for column in range(d.load.shape[1])])


def _play(model: CostModel, d: Durations, column: int) -> float:
    env = simpy.Environment()
    buffer = simpy.Store(env, capacity=model.prefetch)
    load, train = d.load[:, column].tolist(), d.train[:, column].tolist()
    fails = d.fails[:, column].tolist()

    def loader() -> Generator[simpy.Event]:
        for k in range(model.chunks):
            yield env.timeout(load[k])
            yield buffer.put(k)

    def pool() -> Generator[simpy.Event]:
        work = 0.0
        for _ in range(model.chunks):
            k = yield buffer.get()
            work += train[k]
            yield env.timeout(train[k])
            if fails[k]:
                # The checkpoint is a period old: everything since is trained again.
                yield env.timeout(model.restart_seconds + work)
        yield env.timeout(float(d.fixed[column]))

    env.process(loader())
    env.run(until=env.process(pool()))
    return float(env.now)
