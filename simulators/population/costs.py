"""What a period of a population takes: members queue for devices, copy checkpoints, straggle, fail.

Synchronous: every member's work (copy, then steps, then an evaluation) is handed, in the order of the
members, to the first device that is free; the period ends when all are done (the barrier).
Asynchronous: every member has a share of a device to itself and reports when it is done; a period ends
at the next report.

`simpy_finish` plays the synchronous period event by event and is the reference; `twin_finish` computes
the same for a batch by recursion. They agree to rounding error on the same draws.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Generator

import numpy as np
import simpy

from allocgym.envs.core.errors import AllocgymError


@dataclasses.dataclass(frozen=True)
class CostModel:
    """Nominal prices of a small cluster; they order decisions, they are not measurements.

    Attributes:
        devices: that train one member at a time each.
        step_seconds: of one optimiser step.
        copy_seconds: to take over a checkpoint.
        evaluation_seconds: of one member's report.
        jitter: standard deviation of the log of a member's slowness in a period.
        straggler_probability: that a member is slowed down in a period.
        straggler_factor: by how much.
        failure_probability: of each member in a period; its work is done again after a restart.
        restart_seconds: before that.
    """

    devices: int = 4
    step_seconds: float = 0.05
    copy_seconds: float = 0.5
    evaluation_seconds: float = 0.3
    jitter: float = 0.05
    straggler_probability: float = 0.0
    straggler_factor: float = 3.0
    failure_probability: float = 0.0
    restart_seconds: float = 5.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value < 0 or (value == 0 and field.name in ("devices", "step_seconds")):
                raise AllocgymError(f"{field.name}: a positive number expected, given {value}")
            if "probability" in field.name and value > 1:
                raise AllocgymError(f"{field.name}: 0 to 1 expected, given {value}")


def work_seconds(
    model: CostModel,
    steps: np.ndarray,
    copies: np.ndarray,
    jitter: np.ndarray,
    straggle: np.ndarray,
    fail: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of device time of each member, and which of them failed once.

    Args:
        model: prices.
        steps: ``(n, batch)`` steps; members with none take no time (unless they copy).
        copies: ``(n, batch)`` bool, takes over a checkpoint first.
        jitter: ``(n, batch)`` standard normal draws.
        straggle: ``(n, batch)`` uniform draws.
        fail: the same.
    """
    slow = np.exp(model.jitter * jitter)
    slow = np.where(straggle < model.straggler_probability, slow * model.straggler_factor, slow)
    train = steps * model.step_seconds * slow
    failed = (fail < model.failure_probability) & (steps > 0)
    again = np.where(failed, model.restart_seconds + train, 0.0)
    report = np.where(steps > 0, model.evaluation_seconds, 0.0)
    return copies * model.copy_seconds + train + again + report, failed


def twin_finish(model: CostModel, work: np.ndarray) -> np.ndarray:
    """When each member is done, ``(n, batch)``, counted from the start of the period."""
    free = np.zeros((model.devices, work.shape[1]))
    columns = np.arange(work.shape[1])
    done = np.zeros_like(work)
    for member, seconds in enumerate(work):
        first = free.argmin(0)
        free[first, columns] += seconds
        done[member] = free[first, columns]
    return done


def simpy_finish(model: CostModel, work: np.ndarray) -> np.ndarray:
    """The same, event by event, one environment after another."""
    return np.stack([_play(model, work[:, column]) for column in range(work.shape[1])], 1)


def _play(model: CostModel, work: np.ndarray) -> np.ndarray:
    env = simpy.Environment()
    queue = simpy.Store(env)
    queue.items.extend(range(len(work)))
    done = np.zeros(len(work))

    def device() -> Generator[simpy.Event]:
        while queue.items:
            member = yield queue.get()
            yield env.timeout(float(work[member]))
            done[member] = env.now

    for _ in range(model.devices):
        env.process(device())
    env.run()
    return done
