"""The learning law: what a period of training on a mixture does to every domain's loss.

State per domain j, advanced once a period of effort ``D = effort * lr`` (hundreds of full-rate
optimiser steps), at share ``h_j``::

    m_j' = m_j exp(-f_j D) + h_j r_j g_j (1 - exp(-f_j D)) / f_j      effective memory
    f_j  = lambda_j + mu_j c2 / (h_j + c2)                            forgetting rate
    q_j' = h_j + (q_j - h_j) exp(-D / tau)                            recent share

    z_j' = z_j exp(-D (1 + b h_j) / tau_z) + decades the rate has risen   shock of re-warming

    L_i  = E_i + 1 / sum_j C_ij (m_j + m0)^gamma_ij                  what is known
           + zeta_i lr - (kappa_i + eta_i z) log((q_i + c) / (1 + c)) what recovers fast

The power law of effective tokens is the additive mixture law of Shukor et al. (2507.09404) with
tokens replaced by leaky memory. Its matrix comes in two forms: whole, ``C_ij`` and ``gamma_ij`` (fitted
to tables with many domains), or with one strength ``C_i``, one exponent ``gamma_j`` and one part
``cross_i`` that all other domains share, which costs n instead of n^2 powers (fitted to recorded runs)::

    sum_j C_ij (m_j + m0)^gamma_ij  =  C_i (p_i + cross_i sum_{j != i} p_j),   p_j = (m_j + m0)^gamma_j

Further ``r_j`` discounts repeated data (Muennighoff et al. 2023, eq. 5);
``g_j`` gates a skill by the losses of its prerequisites. Forgetting that shrinks with a domain's
own share (``mu``) and a part that recovers within a few steps (``kappa``) are what static pilots
cannot tell apart; both are fitted to runs that switch mixtures (`calibration`). A base that ended at
a low rate is disturbed when the rate is raised again on other data, the more the less of its own data
comes with it, and recovers later (Ibrahim et al. 2024): that is ``eta z``, the largest effect of the
first hundred steps. ``zeta lr`` is what the level of the rate costs until it is lowered.

With ``lambda = mu = zeta = eta = kappa = 0`` and no gate the losses depend on total tokens alone: the
control, where a static split is optimal because every reachable memory is a static one.

Arrays are claimants first, ``(n, batch)``; everything accepts NumPy arrays or torch tensors, so the
law agents are scored on is the law gradients flow through.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from allocgym.envs.core.arrays import Array, namespace, total
from allocgym.envs.core.kernels import formula, kernel
from allocgym.envs.core.record import Columns

LOW_RATE = 0.1
"""Fraction of the peak learning rate below which a base counts as cold."""
LOG_10 = float(np.log(10.0))
LEAST = 1e-9
"""Forgetting of a period is at least this: its ratio to what is kept stays defined."""
R_STAR = 15.387756
"""Repetition half-life constant R*_D of Muennighoff et al. (2023)."""


@dataclasses.dataclass(eq=False)
class Law(Columns):
    """Parameters of a batch of environments.

    Attributes:
        floor: ``(n, batch)`` E, irreducible loss.
        exponent: ``(n, n, batch)`` gamma, or ``(n, batch)`` in the short form.
        log_gain: ``(n, n, batch)`` log C, [i, j] how much memory of j lowers the loss of i; None in
            the short form.
        gain, cross: ``(n, batch)`` C_i and cross_i of the short form, or None.
        offset: m0, memory every domain starts from: ``(batch,)`` or ``(n, n, batch)`` like the gains, or
            ``(n, batch)`` in the short form.
        forget: ``(n, batch)`` lambda, per hundred full-rate steps.
        neglect: ``(n, batch)`` mu, extra forgetting of a domain that gets no data.
        rate: ``(n, batch)`` zeta, loss per unit of learning rate.
        rewarm: ``(n, batch)`` eta, what a rise of the learning rate adds to kappa until it fades.
        recency: ``(n, batch)`` kappa.
        unique: ``(n, batch)`` units in one epoch.
        needs: ``(n, n, batch)`` 1 where skill j waits for skill p: [j, p].
        threshold: ``(n, batch)`` loss of a prerequisite at which its followers open.
        softness: ``(n, batch)`` width of that opening, in loss.
        start: ``(n, batch)`` memory at the start of an episode.
        recent: ``(n, batch)`` recent share at the start.
        rate_start: ``(batch,)`` learning rate the base ended with, as a fraction of the peak.
        present: ``(n, batch)`` 1 for domains, 0 for padding.
        c, c2, tau: constants of the fast part, of neglect, and of the recent share.
        tau_z, b: how long a shock lasts, and how much a domain's own data shortens it.
        repeats, gated, forgets: whether any column uses repetition, gates, path dependence
            (skipping them is a third of the time of a step).
    """

    floor: Array
    exponent: Array
    offset: Array
    forget: Array
    neglect: Array
    rate: Array
    rewarm: Array
    recency: Array
    unique: Array
    needs: Array
    threshold: Array
    softness: Array
    start: Array
    recent: Array
    rate_start: Array
    present: Array
    log_gain: Array | None = None
    gain: Array | None = None
    cross: Array | None = None
    c: float = 0.05
    c2: float = 0.035
    tau: float = 0.03
    tau_z: float = 0.8
    b: float = 5.0
    repeats: bool = False
    gated: bool = False
    forgets: bool = True


@dataclasses.dataclass(eq=False)
class State(Columns):
    """What training has changed: memory ``m``, recent share ``q``, units seen, shock ``z``.

    All are ``(n, batch)``.
    """

    memory: Array
    recent: Array
    seen: Array
    shock: Array


def begin(law: Law) -> State:
    """Return the state at the start of an episode."""
    return State(law.start * 1, law.recent * 1, law.start * 0, law.start * 0)


def train(
    law: Law,
    state: State,
    units: np.ndarray,
    effort: np.ndarray,
    lr: np.ndarray,
    lr_before: np.ndarray,
) -> tuple[State, np.ndarray]:
    """`advance` and then `losses`, for NumPy arrays.

    Arithmetic in compiled loops, exponentials and logarithms by NumPy over blocks that the loops
    fill: NumPy takes many numbers at once where a loop calls the C library for each.
    """
    if not law.forgets:
        state = advance(law, state, units, effort, lr, lr_before)
        return state, losses(law, state, lr)
    worth = worth_of(law, state, units, lr_before)
    number = state.memory.dtype.type
    n, batch = units.shape
    share, step = units / total(units), effort * lr
    fading = np.empty((2 * n + 1, batch), number)
    _fade(
        share,
        step,
        law.forget,
        law.neglect,
        number(law.c2),
        number(law.tau),
        number(law.tau_z),
        number(law.b),
        number(LEAST),
        fading,
    )
    kept = np.exp(fading)
    memory, recent, shock, value = np.empty((4, n, batch), number)
    logs = np.empty((2 * n, batch), number)
    offset = law.offset if law.gain is not None else np.zeros_like(state.memory)
    _carry(
        share,
        np.empty((0, 0), number) if worth is None else worth,
        step,
        lr,
        lr_before,
        fading,
        kept,
        state.memory,
        state.recent,
        state.shock,
        offset,
        number(law.c),
        number(1 / (1 + law.c)),
        number(LOW_RATE),
        memory,
        recent,
        shock,
        logs,
    )
    if law.gain is None:
        # The matrix has its own logarithms to take: n^2 powers of n of them.
        np.log(logs[n:], out=logs[n:])
        value[:] = known(law, memory)
    else:
        np.log(logs, out=logs)
        power = np.multiply(law.exponent, logs[:n])
        _know(np.exp(power, out=power), law.present, law.gain, law.cross, value)
    _level(law.floor, law.rate, lr, law.recency, law.rewarm, shock, logs[n:], value)
    return State(memory, recent, state.seen + units, shock), value


@formula
def decay_of(forget: Array, neglect: Array, c2: float, share: Array, step: Array) -> Array:
    """Forgetting of a period, ``f_j D``."""
    return (forget + neglect * (c2 / (share + c2))) * step


@formula
def remembered(
    memory: Array, kept: Array, gain: Array, step: Array, decay: Array, one: float = 1.0
) -> Array:
    """Effective memory after a period that kept ``kept = exp(-decay)`` of it.

    ``one`` is 1 in the precision of the rest: a literal would make a compiled loop double.
    """
    return memory * kept + gain * step * ((one - kept) / decay)


@formula
def drawn_to(share: Array, recent: Array, kept: Array) -> Array:
    """Recent share after a period."""
    return share + (recent - share) * kept


@formula
def pooled(gain: Array, own: Array, cross: Array, every: Array) -> Array:
    """``C_i (p_i + cross_i sum_{j != i} p_j)``, with ``every`` the sum of all powers."""
    return gain * (own + cross * (every - own))


@formula
def level(
    floor: Array,
    known: Array,
    rate: Array,
    lr: Array,
    fast: Array,
    log_recent: Array,
    one: float = 1.0,
) -> Array:
    """Loss of a domain: ``fast`` is kappa + eta z, ``log_recent`` the logarithm it multiplies."""
    return floor + one / known + rate * lr - fast * log_recent


@kernel
def _fade(
    share: np.ndarray,
    step: np.ndarray,
    forget: np.ndarray,
    neglect: np.ndarray,
    c2: float,
    tau: float,
    tau_z: float,
    b: float,
    least: float,
    out: np.ndarray,
) -> None:
    """Logarithms of what a period leaves of memory (n rows), shock (n rows) and recent share (one)."""
    n, batch = share.shape
    shorter = np.empty_like(step)
    for i in range(batch):
        shorter[i] = -step[i] / tau_z
        out[2 * n, i] = -step[i] / tau
    for j in range(n):
        for i in range(batch):
            out[j, i] = -decay_of(forget[j, i], neglect[j, i], c2, share[j, i], step[i]) - least
            out[n + j, i] = shorter[i] + shorter[i] * b * share[j, i]


@kernel
def _carry(
    share: np.ndarray,
    worth: np.ndarray,
    step: np.ndarray,
    lr: np.ndarray,
    before: np.ndarray,
    fading: np.ndarray,
    kept: np.ndarray,
    memory: np.ndarray,
    recent: np.ndarray,
    shock: np.ndarray,
    offset: np.ndarray,
    c: float,
    scale: float,
    low: float,
    new_memory: np.ndarray,
    new_recent: np.ndarray,
    new_shock: np.ndarray,
    logs: np.ndarray,
) -> None:
    """Fill the new state, and the numbers whose logarithms its losses need."""
    n, batch = share.shape
    one = share.dtype.type(1)
    risen = np.zeros_like(lr)
    for i in range(batch):
        if lr[i] > before[i]:
            risen[i] = max(math.log(max(lr[i], low) / max(before[i], low)) / LOG_10, 0.0)
    for j in range(n):
        for i in range(batch):
            gain = share[j, i] * worth[j, i] if worth.size else share[j, i]
            new_memory[j, i] = remembered(
                memory[j, i], kept[j, i], gain, step[i], -fading[j, i], one
            )
            new_recent[j, i] = drawn_to(share[j, i], recent[j, i], kept[2 * n, i])
            new_shock[j, i] = shock[j, i] * kept[n + j, i] + risen[i]
            logs[j, i] = new_memory[j, i] + offset[j, i]
            logs[n + j, i] = (new_recent[j, i] + c) * scale


@kernel
def _know(
    power: np.ndarray, present: np.ndarray, gain: np.ndarray, cross: np.ndarray, out: np.ndarray
) -> None:
    n, batch = power.shape
    every = np.zeros(batch, power.dtype)
    for j in range(n):
        for i in range(batch):
            out[j, i] = power[j, i] * present[j, i]
            every[i] += out[j, i]
    for j in range(n):
        for i in range(batch):
            out[j, i] = pooled(gain[j, i], out[j, i], cross[j, i], every[i])


@kernel
def _level(
    floor: np.ndarray,
    rate: np.ndarray,
    lr: np.ndarray,
    recency: np.ndarray,
    rewarm: np.ndarray,
    shock: np.ndarray,
    log_recent: np.ndarray,
    value: np.ndarray,
) -> None:
    one = value.dtype.type(1)
    for j in range(len(value)):
        for i in range(value.shape[1]):
            fast = rewarm[j, i] * shock[j, i] + recency[j, i]
            value[j, i] = level(
                floor[j, i], value[j, i], rate[j, i], lr[i], fast, log_recent[j, i], one
            )


def losses(law: Law, state: State, lr: Array) -> Array:
    """Loss of every domain, ``(n, batch)``; ``lr`` ``(batch,)`` is the current learning rate."""
    xp = namespace(state.memory)
    sums = known(law, state.memory)
    if not law.forgets:
        return law.floor + 1 / sums
    fast = law.rewarm * state.shock + law.recency
    log_recent = xp.log((state.recent + law.c) * (1 / (1 + law.c)))
    return level(law.floor, sums, law.rate, lr, fast, log_recent)


def known(law: Law, memory: Array) -> Array:
    """What is known of every domain, ``(n, batch)``: the sum in the denominator of the law."""
    xp = namespace(memory)
    log = xp.log(memory + law.offset)
    if law.gain is None:
        power = law.exponent * log
        power += law.log_gain
        return total(np.exp(power, out=power) if xp is np else xp.exp(power), 1)
    own = xp.exp(law.exponent * log) * law.present
    return pooled(law.gain, own, law.cross, total(own))


def advance(
    law: Law, state: State, units: Array, effort: Array, lr: Array, lr_before: Array
) -> State:
    """Train one period.

    Args:
        law: parameters.
        state: state at the start of the period.
        units: ``(n, batch)`` units of each domain in the period.
        effort: ``(batch,)`` hundreds of optimiser steps in the period.
        lr: ``(batch,)`` mean learning rate of the period, fraction of the peak.
        lr_before: ``(batch,)`` learning rate at which the last losses were taken.
    """
    xp = namespace(state.memory)
    share = units / total(units)
    step = effort * lr
    worth = worth_of(law, state, units, lr_before)
    gain = share if worth is None else share * worth
    if not law.forgets:
        return State(state.memory + gain * step, share, state.seen + units, state.shock)
    decay = decay_of(law.forget, law.neglect, law.c2, share, step) + LEAST
    memory = remembered(state.memory, xp.exp(-decay), gain, step, decay)
    recent = drawn_to(share, state.recent, xp.exp(-step / law.tau))
    fading = xp.exp((1 + law.b * share) * (-step / law.tau_z))
    risen = xp.log(lr.clip(LOW_RATE, None) / lr_before.clip(LOW_RATE, None)).clip(0, None)
    shock = state.shock * fading + risen / LOG_10
    return State(memory, recent, state.seen + units, shock)


def worth_of(law: Law, state: State, units: Array, lr: Array) -> Array | None:
    """What a unit of each domain is worth, ``(n, batch)``; None where all are worth 1."""
    worth = freshness(law.unique, state.seen, units) if law.repeats else None
    if law.gated:
        opened = openness(law, state, lr)
        worth = opened if worth is None else worth * opened
    return worth


def freshness(unique: Array, seen: Array, units: Array) -> Array:
    """Worth of the coming units relative to fresh ones, in (0, 1].

    The increase of Muennighoff's effective data ``D' = U + U R* (1 - exp(-R / R*))``, ``R`` the
    repetitions beyond the first epoch, per unit added.
    """
    xp = namespace(seen)
    small = 1e-6 * (1 + units * 0)
    more = xp.maximum(units, small)
    return (effective(unique, seen + more) - effective(unique, seen)) / more


def effective(unique: Array, seen: Array) -> Array:
    """Effective data D' of ``seen`` units drawn from ``unique`` ones (Muennighoff, eq. 5)."""
    xp = namespace(seen)
    repeated = (seen / unique - 1).clip(0, None)
    fresh = xp.minimum(seen, unique)
    return fresh + unique * R_STAR * (1 - xp.exp(-repeated / R_STAR))


def openness(law: Law, state: State, lr: Array) -> Array:
    """How far each skill's prerequisites are met, in (0, 1]."""
    xp = namespace(state.memory)
    gap = (losses(law, state, lr) - law.threshold) / law.softness
    closed = xp.log(1 + xp.exp(gap.clip(-30, 30)))
    return xp.exp(-total(law.needs * closed[None], 1))
