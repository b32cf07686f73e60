"""What a real run of data mixing is: domains, model, schedule, objective; and named ones."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown
from allocgym.envs.core.scenario import replaced
from allocgym.envs.data_mixing.schedules import SCHEDULES
from allocgym.real_backend.data_mixing.corpora import name_of
from allocgym.real_backend.data_mixing.model import PRESETS
from allocgym.real_backend.data_mixing.training import BATCH


@dataclasses.dataclass(frozen=True)
class Setting:
    """One kind of run. Every field can be overridden by keyword.

    Attributes:
        scenario: name.
        domains: as `corpora.load` takes them: ``"code"``, ``"mine=/path"``, ``"web=hf:dataset"``.
        source: names of the domains the base model is trained on and should not forget; the
            others are targets.
        weights: of the domains in the objective, by name, normalised to sum to 1. Default: half
            for the targets and half for the sources, or equal where there are no sources.
        prior: natural share of each domain, by name, normalised. Default: equal.
        steps: optimiser steps of an episode, a multiple of ``decisions``; each takes `BATCH`
            sequences.
        decisions: periods of an episode.
        base_steps: steps of pre-training on the sources; 0 starts from random weights.
        base_seed: of the base model and its weights; None gives every episode seed its own base.
        preset: model, one of `PRESETS`.
        schedule: of the learning rate: ``"constant"``, ``"cosine"`` or ``"wsd"`` (linear decay
            over the last fifth).
        warmup: fraction of the episode over which the rate rises from 0 (the re-warm-up of
            continual pre-training).
        peak_lr: largest learning rate of the episode.
        base_lr: largest learning rate of pre-training (cosine).
        unique: distinct windows that exist of a scarce domain, by name.
        epoch_cap: epochs a scarce domain may be repeated.
        floor: share of a period every domain gets at least.
        epsilon: how far the sources' mean loss may rise, bits per byte, or None.
        penalty: objective points for each bit per byte beyond ``epsilon``.
        worst: True scores the worst domain instead of the weighted mean.
        graph: known skill graph, ``graph[i][j]`` says how much domain i helps domain j, or None.
        hidden: True hides the horizon from the agent.
        noise: rough standard deviation of a measured loss, bits per byte.
        valid_windows, test_windows: windows of each domain that an evaluation reads.
        step_seconds: nominal seconds of a step on the charged clock.
        byte_seconds: nominal seconds of an evaluated byte on the charged clock.
    """

    scenario: str
    domains: tuple[str, ...]
    source: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = None
    prior: Mapping[str, float] | None = None
    steps: int = 200
    decisions: int = 10
    base_steps: int = 800
    base_seed: int | None = 0
    preset: str = "tiny"
    schedule: str = "cosine"
    warmup: float = 0.05
    peak_lr: float = 3e-3
    base_lr: float = 5e-3
    unique: Mapping[str, int] = dataclasses.field(default_factory=dict)
    epoch_cap: float = 16.0
    floor: float = 0.02
    epsilon: float | None = None
    penalty: float = 4.0
    worst: bool = False
    graph: tuple[tuple[float, ...], ...] | None = None
    hidden: bool = False
    noise: float = 0.005
    valid_windows: int = 24
    test_windows: int = 64
    step_seconds: float = 0.035
    byte_seconds: float = 6e-6

    def __post_init__(self) -> None:
        names = self.names
        if not 2 <= len(set(names)) == len(names):
            raise AllocgymError(f"domains: two or more different names expected, given {names}")
        for field in ("weights", "prior", "unique"):
            for name in getattr(self, field) or ():
                if name not in names:
                    raise unknown(field, name, names)
        for name in self.source:
            if name not in names:
                raise unknown("source", name, names)
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        if self.schedule not in SCHEDULES:
            raise unknown("schedule", self.schedule, SCHEDULES)
        for field in ("steps", "decisions", "valid_windows", "test_windows"):
            value = getattr(self, field)
            self._check(field, isinstance(value, int) and value >= 1, "an integer >= 1")
        if self.steps % self.decisions:
            raise AllocgymError(
                f"steps: a multiple of decisions ({self.decisions}) expected, given {self.steps}"
            )
        self._check("base_steps", self.base_steps >= 0, "an integer >= 0")
        self._check(
            "base_steps", not self.base_steps or self.source, "0 where no domain is a source"
        )
        for field in ("peak_lr", "base_lr", "epoch_cap", "step_seconds", "byte_seconds"):
            self._check(field, getattr(self, field) > 0, "a number > 0")
        self._check("penalty", self.penalty >= 0, "a number >= 0")
        self._check("warmup", 0 <= self.warmup < 1, "a number in [0, 1)")
        self._check("floor", 0 <= self.floor * len(names) <= 1, f"0 to 1 / {len(names)}")
        for name, count in self.unique.items():
            self._check("unique", count >= 1, f"1 or more windows of {name!r}")
        k = len(names)
        if self.graph is not None and [len(row) for row in self.graph] != [k] * k:
            raise AllocgymError(f"graph: {k} rows of {k} numbers expected")
        for field in ("weights", "prior"):
            given = (getattr(self, field) or {"": 1.0}).values()
            self._check(field, min(given) >= 0 and sum(given) > 0, "numbers >= 0, not all 0")
        if self.limits().sum() < self.budget * self.decisions:
            raise AllocgymError(
                f"unique, epoch_cap: the domains may supply {self.limits().sum()} sequences, "
                f"the episode needs {self.budget * self.decisions}"
            )

    def _check(self, field: str, fine: object, expected: str) -> None:
        if not fine:
            raise AllocgymError(f"{field}: {expected} expected, given {getattr(self, field)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains."""
        return tuple(map(name_of, self.domains))

    @property
    def budget(self) -> int:
        """Sequences of a period."""
        return self.steps // self.decisions * BATCH

    def limits(self) -> np.ndarray:
        """``(K,)`` int64 sequences each domain may supply over the episode."""
        total = self.budget * self.decisions
        caps = [math.floor(self.unique.get(n, total) * self.epoch_cap) for n in self.names]
        caps = [c if n in self.unique else total for n, c in zip(self.names, caps, strict=True)]
        return np.minimum(np.array(caps, dtype=np.int64), total)

    def objective_weights(self) -> np.ndarray:
        """``(K,)`` float64 weights of the objective, summing to 1."""
        if self.weights is not None:
            return _normalised(self.weights, self.names)
        is_source = np.isin(self.names, self.source)
        if is_source.all() or not is_source.any():
            return np.full(len(self.names), 1 / len(self.names))
        halves = np.where(is_source, 0.5 / is_source.sum(), 0.5 / (~is_source).sum())
        return halves

    def prior_shares(self) -> np.ndarray:
        """``(K,)`` float64 natural shares, summing to 1."""
        return _normalised(self.prior or dict.fromkeys(self.names, 1.0), self.names)

    def digest(self) -> str:
        """Hash every field: two settings of one digest are the same run."""
        text = json.dumps(dataclasses.asdict(self), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _normalised(values: Mapping[str, float], names: tuple[str, ...]) -> np.ndarray:
    raw = np.array([float(values.get(name, 0.0)) for name in names])
    return raw / raw.sum()


_LEGO = tuple(f"lego3-{k}" for k in range(1, 4))
_PATH = tuple(
    tuple(1.0 if i == j else 0.5 if j == i + 1 else 0.0 for j in range(3)) for i in range(3)
)
_FOUR = ("prose", "code", "arithmetic", "json")

SCENARIOS: dict[str, Setting] = {
    s.scenario: s
    for s in (
        Setting("scratch", _FOUR, base_steps=0, base_seed=None, peak_lr=5e-3),
        Setting("continual-pretraining", ("prose", "arithmetic", "code"), ("prose", "arithmetic")),
        Setting(
            "low-resource",
            _FOUR,
            base_steps=0,
            base_seed=None,
            peak_lr=5e-3,
            unique={"prose": 64, "json": 32},
        ),
        Setting(
            "skills",
            _LEGO,
            steps=1000,
            base_steps=0,
            base_seed=None,
            peak_lr=2e-3,
            graph=_PATH,
            noise=0.03,
            valid_windows=64,
            test_windows=200,
        ),
    )
}


def make(scenario: str | Setting, **overrides: Any) -> Setting:
    """Return a named setting, with fields replaced by keyword.

    Overriding ``domains`` drops what the scenario says by name or by position about others:
    weights, prior, unique, graph and sources that are no longer there.

    Raises:
        AllocgymError: no scenario or no field of that name, or a value out of range.
    """
    if isinstance(scenario, str) and scenario not in SCENARIOS:
        raise unknown("scenario", scenario, SCENARIOS)
    base = SCENARIOS[scenario] if isinstance(scenario, str) else scenario
    changes = dict(overrides)
    if isinstance(changes.get("domains"), (tuple, list)):
        names = set(map(name_of, changes["domains"]))
        kept: dict[str, Any] = {
            "source": tuple(n for n in base.source if n in names),
            "unique": {n: u for n, u in base.unique.items() if n in names},
            "weights": None,
            "prior": None,
            "graph": None,
        }
        if not changes.get("source", kept["source"]):
            kept["base_steps"] = 0
        changes = kept | changes
    return replaced(base, changes, f"scenario {base.scenario!r}")
