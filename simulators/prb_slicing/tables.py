"""36.213's tables of transport block sizes, read from the public data folder."""

from __future__ import annotations

import functools

import numpy as np

from allocgym.envs.prb_slicing.carriers import EFFICIENCY, USABLE
from allocgym.simulators.core import public_data

CODE_RATE = 0.93
"""Highest code rate a scheduler picks."""


@functools.cache
def sizes() -> np.ndarray:
    """Bits of a transport block, ``(27 indices, 100 blocks)`` (table 7.1.7.2.1-1)."""
    file = public_data.path("prb/tables/tbs_36213_bits.csv")
    return np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.int64)[:, 1:]


@functools.cache
def schemes() -> np.ndarray:
    """``(MCS, bits per symbol, TBS index)`` of every MCS (table 7.1.7.1-1)."""
    file = public_data.path("prb/tables/mcs_to_itbs_36213.csv")
    return np.loadtxt(file, delimiter=",", skiprows=1, dtype=np.int64)


def bits(mcs: int, blocks: int) -> int:
    """Bits per TTI of an MCS on so many blocks."""
    index = int(schemes()[schemes()[:, 0] == mcs][0, 2])
    return int(sizes()[index, blocks - 1])


def choose(cqi: int, blocks: int) -> int:
    """The largest MCS a CQI supports (srsLTE's rule: rate within the CQI's, code rate <= 0.93)."""
    best = 0
    for mcs, order, _ in schemes():
        rate = bits(int(mcs), blocks) / (USABLE * blocks)
        if rate <= EFFICIENCY[cqi] and rate / order <= CODE_RATE:
            best = max(best, int(mcs))
    return best


@functools.cache
def bytes_per_block(blocks: int) -> np.ndarray:
    """``(16,)`` bytes per block and TTI at each CQI, all blocks on one user."""
    per = [bits(choose(c, blocks), blocks) / blocks / 8 for c in range(1, 16)]
    return np.array([0.0, *per])
