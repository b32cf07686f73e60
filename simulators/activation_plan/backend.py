"""Training steps to plan for: recorded profiles and analytic ones; SimPy reference and twin."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Generator
from importlib import resources
from typing import Any

import numpy as np
import simpy

from allocgym.envs.activation_plan.problem import (
    OFFLOAD,
    RECOMPUTE,
    ActivationOutcome,
    ActivationPlan,
    GroupChoice,
    Profile,
    profile_from_json,
    timeline,
)
from allocgym.envs.core import randomness
from allocgym.envs.core.contracts import Backend, Spec
from allocgym.envs.core.errors import AllocgymError, unknown

RECORDED = ("gpt-narrow", "gpt-wide", "gpt-long")
SCENARIOS = ("gpt-gpu", "gpt-gpu-test", "mixed", "recorded", *RECORDED)


@functools.cache
def recorded(model: str) -> dict[str, Any]:
    """A profile fitted to real runs of a model on a CPU (see its ``fit`` for the errors)."""
    if model not in RECORDED:
        raise unknown("model", model, RECORDED)
    file = resources.files(__package__) / "fits" / f"{model}.json"
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def gpt_step(
    d: int,
    layers: int,
    rows: int,
    batch: int,
    link: float = 50e9,
    compute: float = 4e14,
    memory: float = 3.35e12,
    overlap: bool = True,
) -> dict[str, Any]:
    """An analytic profile of a GPT training step in bf16 on one accelerator.

    Roofline seconds, ``max(flops / compute, bytes / memory)``; the backward pass takes twice the
    forward pass. Nominal figures: 400 TFLOP/s reached, 3.35 TB/s (H100 SXM), a 50 GB/s link.

    Args:
        d: width.
        layers: blocks.
        rows: tokens a sequence.
        batch: sequences.
        link: bytes a second to host memory, each way.
        compute: FLOP/s reached.
        memory: bytes a second of the device's memory.
        overlap: transfers run beside computation.
    """
    t = rows * batch
    unit = 2.0 * t * d
    attention = {
        "size": 6 * unit,
        "input": unit,
        "seconds": max(
            (8.0 * t * d * d + 4.0 * batch * rows * rows * d) / compute, 9 * unit / memory
        ),
    }
    feed = {
        "size": 10 * unit,
        "input": unit,
        "seconds": max(16.0 * t * d * d / compute, 12 * unit / memory),
    }
    groups = [g for _ in range(layers) for g in (attention, feed)]
    forward = [g["seconds"] for g in groups]
    return {
        "model": f"gpt-d{d}-L{layers}-T{rows}-B{batch}",
        "size": [g["size"] for g in groups],
        "left_recompute": [g["input"] for g in groups],
        "left_offload": [0.0] * len(groups),
        "forward": forward,
        "backward": [2 * f for f in forward],
        "recompute": forward,
        "work": [[g["size"] + 5 * unit] * 3 for g in groups],
        "base": 16.0 * 12 * layers * d * d,
        "head": 4.0 * t * 32000,
        "rate": link,
        "overlap": overlap,
    }


TRAIN = ((1024, 6, 1024, 8), (2048, 8, 2048, 4), (1536, 12, 1024, 8), (4096, 6, 2048, 2))
TEST = ((1280, 10, 2048, 8), (3072, 14, 2048, 4), (8192, 8, 2048, 2), (2048, 16, 4096, 2))


def profiles(scenario: str) -> list[dict[str, Any]]:
    """The training steps of a scenario."""
    if scenario == "recorded":
        return [recorded(m) for m in RECORDED]
    if scenario in RECORDED:
        return [recorded(scenario)]
    if scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    if scenario == "mixed":
        # What agents are trained on: fast and slow links, transfers beside computation and in its way.
        return [
            gpt_step(*a, link=link, overlap=overlap)
            for a in TRAIN
            for link in (50e9, 200e9, 1e12)
            for overlap in (True, False)
        ]
    return [gpt_step(*a) for a in (TRAIN if scenario == "gpt-gpu" else TEST)]


def simulate(profile: Profile, action: np.ndarray, row: int = 0) -> tuple[float, float]:
    """Play one training step in SimPy: a compute stream, a copy engine out and one back.

    Returns:
        Seconds and peak bytes, as `timeline` computes them for a batch.
    """
    env = simpy.Environment()
    out_engine, in_engine = simpy.Resource(env), simpy.Resource(env)
    p, a = profile, [int(v) for v in action[row]]
    n = len(a)
    live = [bool(v) for v in p.present[row]]
    size = [float(v) for v in p.size[row]]
    left = [
        0.0 if not live[i] else float((p.size, p.left_recompute, p.left_offload)[a[i]][row, i])
        for i in range(n)
    ]
    off = [live[i] and a[i] == OFFLOAD for i in range(n)]
    moved = [size[i] - left[i] if off[i] else 0.0 for i in range(n)]
    rate, overlap = float(p.rate[row]), bool(p.overlap[row])
    gone: list[Any] = [None] * n
    back: list[Any] = [None] * n
    held, peak = float(p.base[row]), float(p.base[row])

    def leave(i: int) -> Generator[Any, Any, None]:
        with out_engine.request() as turn:
            yield turn
            yield env.timeout(moved[i] / rate)

    def fetch(i: int) -> Generator[Any, Any, None]:
        with in_engine.request() as turn:
            yield turn
            yield gone[i]
            yield env.timeout(moved[i] / rate)

    def note(before: int, extra: float) -> None:
        nonlocal peak
        late = sum(moved[j] for j in range(before) if off[j] and gone[j].is_alive)
        peak = max(peak, held + late + extra)

    def start(i: int) -> None:
        if off[i]:
            back[i] = env.process(fetch(i))

    def step() -> Generator[Any, Any, None]:
        nonlocal held
        for i in range(n):
            yield env.timeout(float(p.forward[row, i]))
            note(i, size[i] if live[i] else 0.0)
            held += left[i]
            if off[i]:
                gone[i] = env.process(leave(i))
                if not overlap:
                    yield gone[i]
        note(n, float(p.head[row]))
        start(n - 1)
        for i in range(n - 1, -1, -1):
            if back[i] is not None:
                yield back[i]
            ahead = 0.0
            if i and overlap:
                start(i - 1)
                ahead = moved[i - 1]
            held -= left[i]
            note(i, ahead + (float(p.work[row, i, a[i]]) if live[i] else 0.0))
            again = float(p.recompute[row, i]) if live[i] and a[i] == RECOMPUTE else 0.0
            yield env.timeout(again + float(p.backward[row, i]))
            if i and not overlap:
                start(i - 1)

    env.run(until=env.process(step()))
    return float(env.now), peak


class ActivationSimulator(Backend[ActivationOutcome, GroupChoice]):
    """Prices activation plans.

    Args:
        problem: `ActivationPlan`.
        engine: ``"simpy"`` or ``"twin"``.
        scenario: of `SCENARIOS`.
        num_envs: environments in the batch.
        budget: 0 (everything recomputed) to 1 (everything kept), or None: drawn per episode.
    """

    def __init__(
        self,
        problem: ActivationPlan,
        engine: str = "twin",
        scenario: str = "gpt-gpu",
        num_envs: int = 1,
        budget: float | None = None,
    ) -> None:
        if num_envs < 1:
            raise AllocgymError(f"num_envs: an integer >= 1 expected, given {num_envs}")
        if budget is not None and not 0 <= budget <= 1:
            raise AllocgymError(f"budget: 0 to 1 expected, given {budget}")
        found = profiles(scenario)
        self._bank = [profile_from_json(p, problem.n_max, 1.0) for p in found]
        self._low = np.array([_span(p) for p in self._bank])
        self.engine, self.share = engine, budget
        self._count = np.array([len(p["size"]) for p in found])
        spec = Spec(
            problem=problem.id,
            scenario=scenario,
            backend=engine,
            claimants=tuple(f"group-{i}" for i in range(problem.n_max)),
            n_max=problem.n_max,
            unit="decision",
            horizon=int(self._count.max()),
            batch_size=num_envs,
            capabilities=frozenset({"oracle"}),
            details={"budget": budget},
        )
        super().__init__(spec, problem)
        self._all = _stack(self._bank)
        self._which = np.zeros(num_envs, np.int64)
        self._share = np.zeros(num_envs)

    def _reset(self, seeds: np.ndarray, where: np.ndarray) -> ActivationOutcome:
        drawn = randomness.uniform(randomness.stream(seeds, "step", 2), 0)
        which = (drawn[0] * len(self._bank)).astype(np.int64)
        share = np.full(len(seeds), self.share) if self.share is not None else 0.1 + 0.8 * drawn[1]
        self._which = np.where(where, which, self._which)
        self._share = np.where(where, share, self._share)
        profile = self._all.rows(self._which)
        low, high = self._low[self._which].T
        # A hair above the lowest peak, so that recomputing everything is within it.
        profile.budget = (low + self._share * (high - low)) * (1 + 1e-9)
        action = np.zeros(profile.size.shape, np.int64)
        step = np.zeros(len(seeds), np.int64)
        if self._outcome is not None:
            action = np.where(where[:, None], action, self._outcome.action)
            step = np.where(where, step, self._outcome.step)
        return self._tell(profile, action, step, np.zeros(len(seeds), np.int64))

    def _spend(self, decision: GroupChoice) -> ActivationOutcome:
        old = self.outcome
        action, rows = old.action.copy(), np.arange(len(old.step))
        on = (old.step < self._count[self._which]) & (decision.pick >= 0)
        at = np.minimum(old.step, action.shape[1] - 1)
        action[rows, at] = np.where(on, decision.pick, action[rows, at])
        return self._tell(old.profile, action, old.step + on, on.astype(np.int64))

    def _tell(
        self, profile: Profile, action: np.ndarray, step: np.ndarray, spent: np.ndarray
    ) -> ActivationOutcome:
        batch = len(step)
        keep = timeline(profile, np.zeros_like(action))[0]
        if self.engine == "simpy":
            pairs = [simulate(profile, action, row) for row in range(batch)]
            seconds, peak = (np.array(v) for v in zip(*pairs, strict=True))
        else:
            seconds, peak = timeline(profile, action)
        done = step >= self._count[self._which]
        return ActivationOutcome(
            spent=spent,
            seconds=np.where(done & (spent > 0), seconds, 0.0),
            ready=profile.present.copy(),
            valid=np.ones(batch, bool),
            failure=np.zeros(batch, np.int64),
            done=done,
            profile=profile,
            action=action,
            step=step,
            time=seconds,
            peak=peak,
            keep_time=keep,
        )

    def _budget(self) -> np.ndarray:
        return self._count[self._which].astype(np.int64)


def _span(profile: Profile) -> tuple[float, float]:
    from allocgym.envs.activation_plan.problem import span

    low, high = span(profile)
    return float(low[0]), float(high[0])


def _stack(rows: list[Profile]) -> Profile:
    names = [f.name for f in dataclasses.fields(Profile)]
    return Profile(**{k: np.concatenate([getattr(r, k) for r in rows]) for k in names})


def simpy_backend(problem: ActivationPlan, **arguments: Any) -> ActivationSimulator:
    """The reference."""
    return ActivationSimulator(problem, "simpy", **arguments)


def twin_backend(problem: ActivationPlan, **arguments: Any) -> ActivationSimulator:
    """The batched twin."""
    return ActivationSimulator(problem, "twin", **arguments)
