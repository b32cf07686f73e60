"""Randomness keyed by what is drawn, never by when.

Every draw is a pure function of (seed, purpose, claimant, index), so batch k of domain d or the
k-th evaluation error of domain d are the same numbers under every policy, in every batch size and
on either engine: common random numbers by construction.

The generator is the SplitMix64 output function (Steele, Lea and Flood 2014) applied to a counter
hashed from the key, a counter-based generator like Philox (Salmon et al. 2011), as compiled
universal functions over a whole batch of seeds; ``numpy.random.Philox`` can only be keyed one stream
at a time, which costs more than the simulator itself. Bulk draws of one stream (data order, scenario
parameters of a single environment) use ``generator``, which is Philox.
"""

from __future__ import annotations

import functools
import math
import statistics
import zlib

import numpy as np

from allocgym.envs.core.kernels import kernel

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)


@kernel
def _mix(x: np.uint64) -> np.uint64:
    """SplitMix64's finaliser."""
    x = (x ^ (x >> np.uint64(30))) * _M1
    x = (x ^ (x >> np.uint64(27))) * _M2
    return x ^ (x >> np.uint64(31))


@kernel
def _bits(state: np.uint64, index: int) -> np.uint64:
    return _mix(state + (np.uint64(index) + np.uint64(1)) * _GOLDEN)


@kernel
def _fill_mixed(x: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(x)):
        out[i] = _mix(x[i])


@kernel
def _fill_uniform(state: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    for j in range(len(state)):
        for i in range(state.shape[1]):
            bits = _bits(state[j, i], index[i])
            out[j, i] = (np.float64(bits >> np.uint64(11)) + 0.5) * 2.0**-53


@kernel
def _fill_pair(
    state: np.ndarray, index: np.ndarray, one: float, first: np.ndarray, second: np.ndarray
) -> None:
    """Box-Muller, in the precision of ``one``."""
    number = type(one)
    unit, half, turn = number(2.0**-32), number(2.0**-33), number(2 * np.pi)
    for j in range(len(state)):
        for i in range(state.shape[1]):
            bits = _bits(state[j, i], index[i])
            low, high = number(bits & np.uint64(0xFFFFFFFF)), number(bits >> np.uint64(32))
            # In float32 the largest radius can round to 1 or just above, whose logarithm is not
            # negative.
            radius = math.sqrt(abs((one + one) * math.log(low * unit + half)))
            angle = high * unit * turn
            first[j, i] = radius * math.cos(angle)
            second[j, i] = radius * math.sin(angle)


def _mixed(x: np.ndarray) -> np.ndarray:
    out = np.empty(x.shape, np.uint64)
    _fill_mixed(x.reshape(-1), out.reshape(-1))
    return out


def _rows(
    state: np.ndarray, index: np.ndarray | int
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """States as rows, the index that holds down each column, and the shape of what is drawn."""
    if not isinstance(index, np.ndarray):
        return state.reshape(-1, state.shape[-1]), np.full(state.shape[-1], index), state.shape
    if index.ndim > 1:
        shape = np.broadcast_shapes(state.shape, index.shape)
        states, each = (np.ascontiguousarray(np.broadcast_to(a, shape)) for a in (state, index))
        return states.reshape(1, -1), each.reshape(-1), shape
    return state.reshape(-1, state.shape[-1]), index, state.shape


@functools.cache
def _code(purpose: str) -> np.uint64:
    return np.uint64(zlib.crc32(purpose.encode()) + 1)


def stream(seeds: np.ndarray, purpose: str, claimants: int = 1) -> np.ndarray:
    """Hash (seed, purpose, claimant) into stream states.

    Args:
        seeds: ``(batch,)`` integers >= 0.
        purpose: what the numbers are for, such as ``"evaluation"``.
        claimants: n.

    Returns:
        ``(n, batch)`` uint64 states for `uniform` and `normal`.
    """
    with np.errstate(over="ignore"):
        base = _mixed((np.asarray(seeds).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        base = _mixed(base + _code(purpose) * _GOLDEN)
        rows = np.arange(1, claimants + 1, dtype=np.uint64)[:, None] * _GOLDEN
        return _mixed(base[None, :] + rows)


def uniform(state: np.ndarray, index: np.ndarray | int) -> np.ndarray:
    """Draw number ``index`` of each stream: float64 in (0, 1), shape of both broadcast."""
    rows, each, shape = _rows(state, index)
    drawn = np.empty(shape)
    _fill_uniform(rows, each, drawn.reshape(rows.shape))
    return drawn


def normal(state: np.ndarray, index: np.ndarray | int, dtype: type = np.float64) -> np.ndarray:
    """Draw number ``index`` of each stream from the standard normal distribution."""
    return normal_pair(state, index, dtype)[0]


def normal_pair(
    state: np.ndarray, index: np.ndarray | int, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normal draws from each stream (Box-Muller)."""
    rows, each, shape = _rows(state, index)
    first, second = np.empty((2, *shape), dtype)
    _fill_pair(rows, each, dtype(1), first.reshape(rows.shape), second.reshape(rows.shape))
    return first, second


LANES = 4
"""Short draws that one hash yields."""


def lane_stream(seeds: np.ndarray, purpose: str, count: int) -> np.ndarray:
    """Hash (seed, purpose) into the stream states that ``count`` short draws need."""
    return stream(seeds, purpose, -(-count // LANES))


@kernel
def _look_up(state: np.ndarray, index: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Fill row j with entries of a table, chosen by 16 bits of the hash that four rows share."""
    for row in range(0, out.shape[0], LANES):
        for i in range(out.shape[1]):
            bits = _bits(state[row // LANES, i], index[i])
            for j in range(row, min(row + LANES, out.shape[0])):
                out[j, i] = table[bits & np.uint64(0xFFFF)]
                bits >>= np.uint64(16)


@kernel
def _spread(state: np.ndarray, index: np.ndarray, out: np.ndarray) -> None:
    """Fill row j with numbers in (0, 1) made of 16 bits of the hash that four rows share."""
    for row in range(0, out.shape[0], LANES):
        for i in range(out.shape[1]):
            bits = _bits(state[row // LANES, i], index[i])
            for j in range(row, min(row + LANES, out.shape[0])):
                out[j, i] = (np.float64(bits & np.uint64(0xFFFF)) + 0.5) * 2.0**-16
                bits >>= np.uint64(16)


def _each(index: np.ndarray | int, state: np.ndarray) -> np.ndarray:
    return index if isinstance(index, np.ndarray) else np.full(state.shape[1], index)


@functools.cache
def _quantiles(dtype: type) -> np.ndarray:
    normal = statistics.NormalDist()
    upper = [normal.inv_cdf(0.5 + (k + 0.5) / 2**16) for k in range(2**15)]
    return np.concatenate([-np.array(upper[::-1]), upper]).astype(dtype)


def short_normals(
    state: np.ndarray, index: np.ndarray | int, count: int, dtype: type = np.float64
) -> np.ndarray:
    """Draw ``(count, batch)`` from the standard normal distribution at 65,536 equally likely values.

    For where many coarse draws are needed every step (measurement errors, jitter of durations):
    number j is a function of (seed, purpose, index, j), whatever ``count`` is. A fifth of the time of
    `normal`; the largest value is 4.17.
    """
    out: np.ndarray = np.empty((count, state.shape[1]), dtype)
    _look_up(state, _each(index, state), _quantiles(dtype), out)
    return out


def short_uniforms(
    state: np.ndarray, index: np.ndarray | int, count: int, out: np.ndarray | None = None
) -> np.ndarray:
    """Draw ``(count, batch)`` float64 in (0, 1), at 65,536 equally likely values (into ``out``)."""
    filled = np.empty((count, state.shape[1])) if out is None else out
    _spread(state, _each(index, state), filled)
    return filled


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a Philox generator for one (seed, purpose), for bulk draws in a fixed order."""
    return np.random.Generator(np.random.Philox(key=[int(seed), int(_code(purpose))]))
