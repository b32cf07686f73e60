"""Where the parameters of a learning law come from: committed fits, or a fit of your own runs."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from allocgym.envs.core.kernels import kernel
from allocgym.simulators.data_mixing import ensemble
from allocgym.simulators.data_mixing.law import Law, known

if TYPE_CHECKING:
    from allocgym.simulators.core.draw import Draw
    from allocgym.simulators.data_mixing.scenario import MixingScenario

TRAITS = (
    "floor",
    "scale",
    "exponent",
    "cross",
    "begin",
    "forget",
    "neglect",
    "rate",
    "rewarm",
    "recency",
)
"""Per-domain parameters of a recorded fit: L = floor + scale / (own power + cross x others')."""
ROLES = ("source", "target", "scratch")
"""What a domain was in the recorded setting it was fitted in."""
OFFSET = 0.3
"""Memory that is never forgotten, in hundreds of full-rate steps; less where a run begins with less."""


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
    shape = (n, batch)
    shared = shared or read_fit("recorded")["shared"]
    return Law(
        floor=traits["floor"],
        gain=1 / np.maximum(traits["scale"], 1e-9),
        cross=traits["cross"],
        exponent=traits["exponent"],
        offset=np.minimum(traits["begin"], OFFSET),
        forget=traits["forget"],
        neglect=traits["neglect"],
        rate=traits["rate"],
        rewarm=traits["rewarm"],
        recency=traits["recency"],
        unique=np.full(shape, 1e9),
        needs=np.zeros((n, n, batch)),
        threshold=np.zeros(shape),
        softness=np.ones(shape),
        start=np.maximum(traits["begin"] - OFFSET, 0.0) * present,
        recent=present / present.sum(0),
        rate_start=np.full(batch, 0.1),
        present=present.astype(float),
        **shared,
    )


@functools.cache
def _pool() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms of the fitted traits, ``(traits, domains)``, ordered by role; start and size of each."""
    domains = sorted(read_fit("recorded")["domains"], key=lambda d: ROLES.index(d["role"]))
    logs = np.log(np.maximum([[d[name] for d in domains] for name in TRAITS], 1e-4))
    sizes = np.array([sum(d["role"] == role for d in domains) for role in ROLES])
    return logs, np.cumsum(sizes) - sizes, sizes


def recorded_traits(roles: np.ndarray, draw: Draw, jitter: float) -> dict[str, np.ndarray]:
    """Draw traits around the domains fitted in a role; ``roles`` ``(n, batch)`` indexes `ROLES`.

    Each new domain lies on the line through two fitted ones (in logarithms), which keeps the
    correlations between weakly identified parameters, and up to ``jitter - 1`` of their distance
    beyond either; each parameter is then varied on its own by a quarter of that.
    """
    logs, begin, size = _pool()
    value = np.empty((len(TRAITS), *roles.shape))
    _vary(
        logs, begin[roles], size[roles], draw.several("traits", 3 + len(TRAITS)), jitter - 1, value
    )
    return dict(zip(TRAITS, np.exp(value, out=value), strict=True))


@kernel
def _vary(
    logs: np.ndarray,
    begin: np.ndarray,
    size: np.ndarray,
    u: np.ndarray,
    beyond: float,
    out: np.ndarray,
) -> None:
    n, batch = begin.shape
    for j in range(n):
        for i in range(batch):
            first = begin[j, i] + int(u[0, j, i] * size[j, i])
            second = begin[j, i] + int(u[1, j, i] * size[j, i])
            along = u[2, j, i] * (1 + 2 * beyond) - beyond
            for t in range(len(logs)):
                value = logs[t, first]
                value += along * (logs[t, second] - value)
                out[t, j, i] = value + (u[3 + t, j, i] - 0.5) * (beyond / 2)


def continual(scenario: MixingScenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
    """Continual pre-training: known source domains, one new target (the last domain)."""
    roles = np.where(last, ROLES.index("target"), ROLES.index("source"))
    law = recorded_law(recorded_traits(roles, draw, scenario.jitter), present)
    source = present & ~last
    law.recent = source / source.sum(0)
    return law


def regmix(scenario: MixingScenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
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
    traits = recorded_traits(np.full(present.shape, ROLES.index("scratch")), draw, scenario.jitter)
    shared = read_fit("recorded")["shared"]
    shape = (n, batch)
    return Law(
        floor=np.array(fit["E"])[pick],
        log_gain=log_gain,
        exponent=exponent,
        offset=fit["offset"] * run,
        forget=traits["forget"],
        neglect=traits["neglect"],
        rate=traits["rate"],
        rewarm=traits["rewarm"],
        recency=traits["recency"],
        unique=np.full(shape, 1e9),
        needs=np.zeros((n, n, batch)),
        threshold=np.zeros(shape),
        softness=np.ones(shape),
        start=np.zeros(shape),
        recent=present / present.sum(0),
        rate_start=np.full(batch, 0.0),
        present=present.astype(float),
        **shared,
    )


def skills(scenario: MixingScenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
    """Skills in a chain: each opens as the loss of the one before it falls.

    The learning curves are those of the recorded from-scratch runs; the strength of the gates is
    assumed, not fitted.
    """
    traits = recorded_traits(np.full(present.shape, ROLES.index("scratch")), draw, scenario.jitter)
    traits["cross"] = traits["cross"] * 0.3
    law = recorded_law(traits, present)
    law.rate_start = np.zeros_like(law.rate_start)
    n = len(present)
    chain = np.eye(n, k=-1)[:, :, None] * (present[:, None] & present[None])
    law.needs = chain.astype(float)
    law.gated = True
    begins = law.floor + 1 / known(law, law.start)
    depth = draw.each("gate-depth", 0.3, 0.6)
    law.threshold = begins - depth * (begins - law.floor)
    law.softness = 0.1 * (begins - law.floor)
    return law


def table(scenario: MixingScenario, draw: Draw, present: np.ndarray, last: np.ndarray) -> Law:
    """A table's fitted law: each episode follows one member of the ensemble.

    The fitted law holds at the end of a run. Memory is rescaled so that an episode is such a run: a
    static mixture ends where the fit says, and so does any other with the same exposure. A domain's row
    shows the family that `TableFit.shows` names. There is no learning rate in it, no shock and no fast
    part: a table of end points cannot tell them.
    """
    fit = ensemble.read(scenario.fit)
    n, batch = present.shape
    count, shown = len(fit.domains), fit.shows()
    # Fits to resampled runs, where there are any: the one to all runs is none of the draws.
    members = fit.members[1:] or fit.members
    pick = np.minimum((draw.one("member", 0, 1) * len(members)).astype(int), len(members) - 1)

    def drawn(name: str, padding: float) -> np.ndarray:
        """A field of the laws as ``(n, n, batch)``: row i is the law of the family that i shows."""
        whole = np.full((len(members), n, n), padding)
        for k, member in enumerate(members):
            rows = [np.broadcast_to(getattr(law, name), count) for law in member.laws]
            whole[k, :count, :count] = np.stack(rows)[shown]
        return np.moveaxis(whole[pick], 0, 2)

    low, high = scenario.steps
    run = np.exp(draw.one("steps", np.log(low), np.log(high))) / 100
    rate = np.array([member.forgetting for member in members])[pick]
    steady = np.where(np.abs(rate) < 1e-6, 1.0, -np.expm1(-rate) / np.where(rate == 0, 1.0, rate))
    unit = run * steady
    exponent = drawn("exponent", 1.0)
    floors = np.array([[law.floor for law in member.laws] for member in members])[:, shown]
    floor = np.ones((n, batch))
    floor[:count] = floors[pick].T
    zero = np.zeros((n, batch))
    # A padded row knows one thing of itself: its loss is finite.
    log_gain = drawn("log_gain", -60.0)
    log_gain[np.arange(count, n), np.arange(count, n)] = 0.0
    return Law(
        floor=floor,
        log_gain=log_gain - exponent * np.log(unit),
        exponent=exponent,
        offset=drawn("offset", 1.0) * unit,
        forget=zero + rate / run,
        neglect=zero,
        rate=zero,
        rewarm=zero,
        recency=zero,
        unique=zero + 1e9,
        needs=np.zeros((n, n, batch)),
        threshold=zero,
        softness=zero + 1,
        start=zero,
        recent=present / present.sum(0),
        rate_start=np.ones(batch),
        present=present.astype(float),
        forgets=fit.order_matters,
    )


def table_facts(scenario: MixingScenario, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Prior and weights of a table's domains, ``(n, batch)`` each.

    The weights of the rows that show a family share that family's weight, which is equal for all.
    """
    fit = ensemble.read(scenario.fit)
    shown = fit.shows()
    rows = np.bincount(shown, minlength=len(fit.families))
    weight = 1 / (rows * len(fit.families))
    out = np.zeros((2, *present.shape))
    out[0, : len(fit.prior)] = fit.prior[:, None]
    out[1, : len(fit.prior)] = weight[shown][:, None]
    return out[0], out[1]


FAMILIES: dict[str, Callable[[MixingScenario, Draw, np.ndarray, np.ndarray], Law]] = {
    "regmix": regmix,
    "continual": continual,
    "skills": skills,
    "table": table,
}
