"""Randomness keyed by what is drawn, never by when.

Every draw is a pure function of (seed, purpose, claimant, index), so batch k of domain d or the
k-th evaluation error of domain d are the same numbers under every policy, in every batch size and
on either engine: common random numbers by construction.

The generator is the SplitMix64 output function (Steele, Lea and Flood 2014) applied to a counter
hashed from the key, a counter-based generator like Philox (Salmon et al. 2011) that vectorises in
a dozen NumPy operations over a whole batch of seeds; ``numpy.random.Philox`` can only be keyed one
stream at a time, which costs more than the simulator itself. Bulk draws of one stream (data order,
scenario parameters of a single environment) use ``generator``, which is Philox.
"""

from __future__ import annotations

import functools
import statistics
import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_TWO_PI = 2 * np.pi


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser, in place on a uint64 array that the caller owns."""
    t = x >> np.uint64(30)
    x ^= t
    x *= _M1
    np.right_shift(x, np.uint64(27), out=t)
    x ^= t
    x *= _M2
    np.right_shift(x, np.uint64(31), out=t)
    x ^= t
    return x


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
        base = _mix((np.asarray(seeds).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
        base = _mix(base + _code(purpose) * _GOLDEN)
        rows = np.arange(1, claimants + 1, dtype=np.uint64)[:, None] * _GOLDEN
        return _mix(base[None, :] + rows)


def _bits(state: np.ndarray, index: np.ndarray | int) -> np.ndarray:
    with np.errstate(over="ignore"):
        counter = (np.asarray(index).astype(np.uint64) + np.uint64(1)) * _GOLDEN
        return _mix(state + counter)


def uniform(state: np.ndarray, index: np.ndarray | int) -> np.ndarray:
    """Draw number ``index`` of each stream: float64 in (0, 1), shape of ``state``."""
    return ((_bits(state, index) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def normal(state: np.ndarray, index: np.ndarray | int, dtype: type = np.float64) -> np.ndarray:
    """Draw number ``index`` of each stream from the standard normal distribution."""
    return normal_pair(state, index, dtype)[0]


def normal_pair(
    state: np.ndarray, index: np.ndarray | int, dtype: type = np.float64
) -> tuple[np.ndarray, np.ndarray]:
    """Two independent standard normal draws from each stream (Box-Muller)."""
    bits = _bits(state, index)
    halves: np.ndarray = bits.view(np.uint32).astype(dtype)
    halves *= dtype(2.0**-32)
    radius, angle = halves[..., ::2].copy(), halves[..., 1::2].copy()
    radius += dtype(2.0**-33)
    np.log(radius, out=radius)
    radius *= dtype(-2)
    # In float32 the largest radius can round to 1 or just above, whose logarithm is not negative.
    np.sqrt(np.abs(radius, out=radius), out=radius)
    angle *= dtype(_TWO_PI)
    return radius * np.cos(angle), radius * np.sin(angle)


LANES = 4
"""Short draws that one hash yields: see `lanes`."""
_SHIFTS = np.arange(LANES, dtype=np.uint64)[:, None] * np.uint64(16)


def lane_stream(seeds: np.ndarray, purpose: str, count: int) -> np.ndarray:
    """Hash (seed, purpose) into the stream states that ``count`` short draws need (see `lanes`)."""
    return stream(seeds, purpose, -(-count // LANES))


def lanes(state: np.ndarray, index: np.ndarray | int, count: int) -> np.ndarray:
    """Draw ``count`` 16-bit numbers per environment: ``(count, batch)`` int64 in [0, 65535].

    Four to a hash, for where many coarse draws are needed every step (measurement errors, jitter of
    durations): number j is a function of (seed, purpose, index, j), whatever ``count`` is.
    """
    bits = _bits(state, index)
    parts = bits[:, None] >> _SHIFTS
    parts &= np.uint64(0xFFFF)
    return parts.reshape(-1, bits.shape[1])[:count].view(np.int64)


@functools.cache
def _quantiles(dtype: type) -> np.ndarray:
    normal = statistics.NormalDist()
    upper = [normal.inv_cdf(0.5 + (k + 0.5) / 2**16) for k in range(2**15)]
    return np.concatenate([-np.array(upper[::-1]), upper]).astype(dtype)


def short_normals(
    state: np.ndarray, index: np.ndarray | int, count: int, dtype: type = np.float64
) -> np.ndarray:
    """Draw ``(count, batch)`` from the standard normal distribution at 65,536 equally likely values.

    A third of the time of `normal`; the largest value is 4.17.
    """
    return np.take(_quantiles(dtype), lanes(state, index, count))


def short_uniforms(state: np.ndarray, index: np.ndarray | int, count: int) -> np.ndarray:
    """Draw ``(count, batch)`` float64 in (0, 1), at 65,536 equally likely values."""
    drawn: np.ndarray = lanes(state, index, count).astype(np.float64)
    drawn += 0.5
    drawn *= 2.0**-16
    return drawn


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return a Philox generator for one (seed, purpose), for bulk draws in a fixed order."""
    return np.random.Generator(np.random.Philox(key=[int(seed), int(_code(purpose))]))
