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
from allocgym.envs.core.scenario import Scenario, within
from allocgym.envs.data_mixing.schedules import SCHEDULES
from allocgym.real_backend.data_mixing.corpora import name_of
from allocgym.real_backend.data_mixing.model import PRESETS
from allocgym.real_backend.data_mixing.training import BATCH

OBJECTIVES = ("mean", "worst")
RENAMED = {"decisions": "horizon", "scenario": "name"}
"""Fields by the names they had in older run folders."""


@dataclasses.dataclass(frozen=True)
class RealMixingScenario(Scenario):
    """One kind of run. What a simulated scenario has too goes by the same name.

    Attributes:
        domains: as `corpora.load` takes them: ``"code"``, ``"mine=/path"``, ``"web=hf:dataset"``.
        source: names of the domains the base model is trained on and should not forget; the
            others are targets.
        weights: of the domains in the objective, by name, normalised to sum to 1. Default: half
            for the targets and half for the sources, or equal where there are no sources.
        prior: natural share of each domain, by name, normalised. Default: equal.
        steps: optimiser steps of an episode, a multiple of ``horizon``; each takes `BATCH`
            sequences.
        horizon: periods of an episode.
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
        objective: ``"mean"`` (weighted) or ``"worst"`` (the worst domain's loss).
        graph: known skill graph, ``graph[i][j]`` says how much domain i helps domain j, or None.
        hidden: True hides the horizon from the agent.
        noise: rough standard deviation of a measured loss, bits per byte.
        valid_windows, test_windows: windows of each domain that an evaluation reads.
        step_seconds: nominal seconds of a step on the charged clock.
        byte_seconds: nominal seconds of an evaluated byte on the charged clock.
    """

    domains: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    weights: Mapping[str, float] | None = within(None, 0, 1e12)
    prior: Mapping[str, float] | None = within(None, 0, 1e12)
    steps: int = within(200, 1, 10**8)
    horizon: int = within(10, 1, 100_000)
    base_steps: int = within(800, 0, 10**8)
    base_seed: int | None = within(0, 0, 2**40)
    preset: str = "tiny"
    schedule: str = "cosine"
    warmup: float = within(0.05, 0, 0.999)
    peak_lr: float = within(3e-3, 1e-9, 10)
    base_lr: float = within(5e-3, 1e-9, 10)
    unique: Mapping[str, int] = dataclasses.field(default_factory=dict, metadata={"low": 1})
    epoch_cap: float = within(16.0, 1e-3, 1e6)
    floor: float = within(0.02, 0, 0.5)
    epsilon: float | None = within(None, 0, 100)
    penalty: float = within(4.0, 0, 1e6)
    objective: str = "mean"
    graph: tuple[tuple[float, ...], ...] | None = None
    hidden: bool = False
    noise: float = within(0.005, 0, 10)
    valid_windows: int = within(24, 1, 10**6)
    test_windows: int = within(64, 1, 10**6)
    step_seconds: float = within(0.035, 1e-9, 1e6)
    byte_seconds: float = within(6e-6, 1e-12, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
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
        for field, allowed in (
            ("preset", PRESETS),
            ("schedule", SCHEDULES),
            ("objective", OBJECTIVES),
        ):
            if getattr(self, field) not in allowed:
                raise unknown(field, getattr(self, field), allowed)
        if self.steps % self.horizon:
            raise AllocgymError(
                f"steps: a multiple of horizon ({self.horizon}) expected, given {self.steps}"
            )
        self._check(
            "base_steps", not self.base_steps or self.source, "0 where no domain is a source"
        )
        self._check("floor", self.floor * len(names) <= 1, f"0 to 1 / {len(names)}")
        k = len(names)
        rows = [len(r) if isinstance(r, (tuple, list)) else 0 for r in self.graph or ()]
        if self.graph is not None and rows != [k] * k:
            raise AllocgymError(f"graph: {k} rows of {k} numbers expected")
        for field in ("weights", "prior"):
            given = (getattr(self, field) or {"": 1.0}).values()
            self._check(field, sum(given) > 0, "numbers >= 0, not all 0")
        if self.limits().sum() < self.budget * self.horizon:
            raise AllocgymError(
                f"unique, epoch_cap: the domains may supply {self.limits().sum()} sequences, "
                f"the episode needs {self.budget * self.horizon}"
            )

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """See `Checked.altered`.

        Overriding ``domains`` drops what the scenario says by name or by position about others:
        weights, prior, unique, graph and sources that are no longer there. Names that fields had in
        older run folders are understood.
        """
        changes = {RENAMED.get(k, k): v for k, v in changes.items()}
        if (worst := changes.pop("worst", None)) is not None:
            changes["objective"] = OBJECTIVES[bool(worst)]
        domains = changes.get("domains")
        if not isinstance(domains, (tuple, list)) or not all(isinstance(d, str) for d in domains):
            return changes  # which is refused
        names = set(map(name_of, domains))
        kept: dict[str, Any] = {
            "source": tuple(n for n in self.source if n in names),
            "unique": {n: u for n, u in self.unique.items() if n in names},
            "weights": None,
            "prior": None,
            "graph": None,
        }
        if not changes.get("source", kept["source"]):
            kept["base_steps"] = 0
        return kept | changes

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
        return self.steps // self.horizon * BATCH

    def limits(self) -> np.ndarray:
        """``(K,)`` int64 sequences each domain may supply over the episode."""
        total = self.budget * self.horizon
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
        """Hash every field: two scenarios of one digest are the same run."""
        fields = dataclasses.asdict(self)
        # As fields were called when the first checkpoints were written.
        fields["worst"] = fields.pop("objective") == "worst"
        for old, new in RENAMED.items():
            fields[old] = fields.pop(new)
        text = json.dumps(fields, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _normalised(values: Mapping[str, float], names: tuple[str, ...]) -> np.ndarray:
    raw = np.array([float(values.get(name, 0.0)) for name in names])
    return raw / raw.sum()


_LEGO = tuple(f"lego3-{k}" for k in range(1, 4))
_PATH = tuple(
    tuple(1.0 if i == j else 0.5 if j == i + 1 else 0.0 for j in range(3)) for i in range(3)
)
_FOUR = ("prose", "code", "arithmetic", "json")

SCENARIOS: dict[str, RealMixingScenario] = {
    s.name: s
    for s in (
        RealMixingScenario("scratch", _FOUR, base_steps=0, base_seed=None, peak_lr=5e-3),
        RealMixingScenario(
            "continual-pretraining", ("prose", "arithmetic", "code"), ("prose", "arithmetic")
        ),
        RealMixingScenario(
            "low-resource",
            _FOUR,
            base_steps=0,
            base_seed=None,
            peak_lr=5e-3,
            unique={"prose": 64, "json": 32},
        ),
        RealMixingScenario(
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
