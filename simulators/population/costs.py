"""What a period of a population takes: members queue for devices, copy checkpoints, straggle, fail.

Synchronous: every member's work (copy, then steps, then an evaluation) is handed, in the order of the
members, to the first device that is free; the period ends when all are done (the barrier).
Asynchronous: every member has a share of a device to itself and reports when it is done; a period ends
at the next report.

`simpy_finish` plays the synchronous period event by event and is the reference; `twin_finish` computes
the same for a batch by recursion. They agree to rounding error on the same draws.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np
import simpy

from allocgym.simulators.population.scenario import CostModel


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
