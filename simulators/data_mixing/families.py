"""Where the parameters of a learning law come from: three families, each from committed fits."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from allocgym.simulators.data_mixing.law import Law

if TYPE_CHECKING:
    from allocgym.simulators.data_mixing.scenarios import Draw, Scenario

TRAITS = (
    "floor", "scale", "exponent", "cross", "start", "forget", "neglect", "rate", "recency",
)  # fmt: skip
"""Per-domain parameters of a recorded fit: L = floor + scale / (own memory + cross x others')."""
OFFSET = 0.1
"""Memory every domain starts from, in hundreds of full-rate steps (fixed in all recorded fits)."""


@functools.cache
def read_fit(name: str) -> dict[str, Any]:
    """Read fitted parameters shipped with the package (``fits/<name>.json``)."""
    file = resources.files("allocgym.simulators.data_mixing") / "fits" / f"{name}.json"
    data: dict[str, Any] = json.loads(file.read_text())
    return data


def recorded_law(
    traits: dict[str, np.ndarray], present: np.ndarray, shared: dict[str, float] | None = None
) -> Law:
    """Build a law from per-domain traits, ``(n, batch)`` each (see `TRAITS`)."""
    n, batch = present.shape
    own = -np.log(np.maximum(traits["scale"], 1e-9))
    eye = np.eye(n, dtype=bool)[:, :, None]
    cross = np.log(np.maximum(traits["cross"], 1e-9))[:, None]
    gain = own[:, None] + np.where(eye, 0.0, cross)
    # Padding neither teaches nor learns.
    gain = np.where(present[None] | eye, gain, -60.0)
    exponent = np.broadcast_to(traits["exponent"][:, None], (n, n, batch))
    shape = (n, batch)
    shared = shared or read_fit("recorded")["shared"]
    return Law(
        floor=traits["floor"], log_gain=gain, exponent=exponent.copy(),
        offset=np.full(batch, OFFSET), forget=traits["forget"], neglect=traits["neglect"],
        rate=traits["rate"], recency=traits["recency"], unique=np.full(shape, 1e9),
        needs=np.zeros((n, n, batch)), threshold=np.zeros(shape), softness=np.ones(shape),
        start=traits["start"] * present, recent=present / present.sum(0),
        rate_start=np.full(batch, 0.1), present=present.astype(float),
        c=shared["c"], c2=shared["c2"], tau=shared["tau"],
    )  # fmt: skip


def recorded_traits(
    role: str, draw: Draw, jitter: float, names: tuple[str, ...] = TRAITS
) -> dict[str, np.ndarray]:
    """Draw traits around the domains fitted in one role (``"source"``, ``"target"``, ``"scratch"``).

    Each new domain lies on the line through two fitted ones (in logarithms), which keeps the
    correlations between weakly identified parameters, and up to ``jitter - 1`` of their distance
    beyond either; each parameter is then varied on its own by a quarter of that.
    """
    pool = [d for d in read_fit("recorded")["domains"] if d["role"] == role]
    first = np.floor(draw.each(f"{role}-first", 0, len(pool) - 1e-9)).astype(int)
    second = np.floor(draw.each(f"{role}-second", 0, len(pool) - 1e-9)).astype(int)
    beyond = jitter - 1
    blend = draw.each(f"{role}-blend", -beyond, 1 + beyond)
    traits = {}
    for name in names:
        logs = np.log(np.maximum([d[name] for d in pool], 1e-4))
        value = logs[first] + blend * (logs[second] - logs[first])
        reach = beyond * np.ptp(logs)
        spread = np.clip(value, logs.min() - reach, logs.max() + reach)
        own = draw.each(f"{role}-{name}", -beyond / 4, beyond / 4)
        traits[name] = np.exp(spread + own)
    return traits


def continual(scenario: Scenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
    """Continual pre-training: known source domains, one new target (the last domain)."""
    source = recorded_traits("source", draw, scenario.jitter)
    target = recorded_traits("target", draw, scenario.jitter)
    law = recorded_law({k: np.where(last, target[k], source[k]) for k in TRAITS}, present)
    known = present & ~last
    law.recent = known / known.sum(0)
    return law


def regmix(scenario: Scenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
    """From scratch: who helps whom as fitted to RegMix, forgetting as fitted to recorded runs.

    RegMix's gains and exponents hold for memory counted in fractions of its 1B-token runs; they
    are rescaled so that an episode at full rate is such a run. Losses are nats per token, as there.
    End losses cannot identify forgetting or learning-rate terms: those come from our own runs,
    per hundred optimiser steps.
    """
    fit = read_fit("regmix_1m")
    names = fit["targets"]
    columns = [fit["domains"].index(name) for name in names]
    gains = np.array(fit["C"])[:, columns]
    exponents = np.array(fit["gamma"])[:, columns]
    n, batch = present.shape
    keys = np.stack([draw.one(f"regmix-{name}", 0, 1) for name in names])
    pick = np.argsort(keys, axis=0)
    if n > len(pick):
        pick = np.concatenate([pick] * (n // len(pick) + 1))
    pick = pick[:n]
    log_gain = np.log(np.maximum(gains[pick[:, None], pick[None]], 1e-12))
    exponent = exponents[pick[:, None], pick[None]]
    jitter = scenario.jitter - 1
    log_gain = log_gain + np.stack(
        [draw.each("regmix-gain", -jitter, jitter, index=j) for j in range(n)], axis=1
    )
    low, high = scenario.steps
    run = np.exp(draw.one("steps", np.log(low), np.log(high))) / 100
    log_gain = log_gain - exponent * np.log(run)
    eye = np.eye(n, dtype=bool)[:, :, None]
    log_gain = np.where((present[:, None] & present[None]) | eye, log_gain, -60.0)
    traits = recorded_traits("scratch", draw, scenario.jitter)
    shared = read_fit("recorded")["shared"]
    shape = (n, batch)
    return Law(
        floor=np.array(fit["E"])[pick], log_gain=log_gain, exponent=exponent,
        offset=fit["offset"] * run,
        forget=traits["forget"], neglect=traits["neglect"], rate=traits["rate"],
        recency=traits["recency"], unique=np.full(shape, 1e9), needs=np.zeros((n, n, batch)),
        threshold=np.zeros(shape), softness=np.ones(shape), start=np.zeros(shape),
        recent=present / present.sum(0), rate_start=np.full(batch, 0.0),
        present=present.astype(float), c=shared["c"], c2=shared["c2"], tau=shared["tau"],
    )  # fmt: skip


def skills(scenario: Scenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
    """Skills in a chain: each opens as the loss of the one before it falls.

    The learning curves are those of the recorded from-scratch runs; the strength of the gates is
    assumed, not fitted.
    """
    traits = recorded_traits("scratch", draw, scenario.jitter)
    traits["cross"] = traits["cross"] * 0.3
    law = recorded_law(traits, present)
    law.rate_start = np.zeros_like(law.rate_start)
    n = len(present)
    chain = np.eye(n, k=-1)[:, :, None] * (present[:, None] & present[None])
    law.needs = chain.astype(float)
    law.gated = True
    begins = law.floor + traits["scale"] / OFFSET ** traits["exponent"]
    depth = draw.each("gate-depth", 0.3, 0.6)
    law.threshold = begins - depth * (begins - law.floor)
    law.softness = 0.1 * (begins - law.floor)
    return law


FAMILIES: dict[str, Callable[[Scenario, Draw, np.ndarray, np.ndarray], Law]] = {
    "regmix": regmix,
    "continual": continual,
    "skills": skills,
}
