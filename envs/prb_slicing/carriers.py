"""Carriers: how many resource blocks, in groups of which sizes, and what a block carries.

Sources: LTE widths and group sizes 36.213 table 7.1.6.1-1; NR group sizes 38.214 table
5.1.2.2.1-1; CQI table 1 is 36.213 table 7.2.3-1 (= 38.214 table 5.2.2.1-2).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown

LTE_BLOCKS = {1.4: 6, 3.0: 15, 5.0: 25, 10.0: 50, 15.0: 75, 20.0: 100}
"""LTE channel width in MHz to resource blocks."""

USABLE = 136.0
"""Resource elements of a block that carry data in one LTE TTI, of 168 (measured in KPI logs)."""

EFFICIENCY = np.array(
    [
        0.0,
        0.1523,
        0.2344,
        0.3770,
        0.6016,
        0.8770,
        1.1758,
        1.4766,
        1.9141,
        2.4063,
        2.7305,
        3.3223,
        3.9023,
        4.5234,
        5.1152,
        5.5547,
    ]
)
"""Bits per resource element of CQI 0 to 15 (table 1)."""


def lte_group(blocks: int) -> int:
    """Blocks in an LTE resource block group."""
    return 1 if blocks <= 10 else 2 if blocks <= 26 else 3 if blocks <= 63 else 4


def nr_group(blocks: int, configuration: int = 1) -> int:
    """Blocks in an NR resource block group (38.214 table 5.1.2.2.1-1)."""
    small = {36: (2, 4), 72: (4, 8), 144: (8, 16), 275: (16, 16)}
    for widest, sizes in small.items():
        if blocks <= widest:
            return sizes[configuration - 1]
    raise AllocgymError(f"blocks: at most 275 in an NR carrier, given {blocks}")


@dataclasses.dataclass(frozen=True)
class Carrier:
    """A carrier and its resource block groups.

    Attributes:
        blocks: resource blocks (50 for 10 MHz LTE).
        group: blocks per group; the last group may be smaller.
        technology: ``"lte"`` or ``"nr"``.
        numerology: 0 for LTE; in NR, slots of ``1 / 2**mu`` ms and blocks of ``180 * 2**mu`` kHz.
    """

    blocks: int = 50
    group: int = 3
    technology: str = "lte"
    numerology: int = 0

    def __post_init__(self) -> None:
        if self.technology not in ("lte", "nr"):
            raise unknown("technology", self.technology, ("lte", "nr"))
        if not 1 <= self.blocks <= (110 if self.technology == "lte" else 275):
            raise AllocgymError(f"blocks: 1 to 110 (LTE) or 275 (NR), given {self.blocks}")
        if not 0 <= self.numerology <= (0 if self.technology == "lte" else 4):
            raise AllocgymError(f"numerology: 0 (LTE), 0 to 4 (NR), given {self.numerology}")

    @property
    def groups(self) -> int:
        """Number of groups: the budget of a period."""
        return -(-self.blocks // self.group)

    @property
    def sizes(self) -> np.ndarray:
        """``(groups,)`` blocks in each group."""
        sizes = np.full(self.groups, self.group)
        sizes[-1] = self.blocks - self.group * (self.groups - 1)
        return sizes

    def blocks_of(self, units: np.ndarray) -> np.ndarray:
        """Blocks of contiguous shares: ``(batch, n)`` groups in slice order to ``(batch, n)``."""
        edges = np.concatenate([[0], np.cumsum(self.sizes)])
        ends = edges[np.cumsum(units, 1)]
        return np.diff(ends, axis=1, prepend=0)

    def bytes_per_block(self, cqi: np.ndarray) -> np.ndarray:
        """Bytes one block carries in one millisecond at a CQI (0 to 15).

        ``136 * efficiency`` bits per TTI (measured: 135 to 145 over CQI 4 to 9); an NR block has
        the same resource elements in a slot of ``1 / 2**mu`` ms.
        """
        return EFFICIENCY[np.asarray(cqi, np.int64)] * (USABLE / 8 * 2**self.numerology)


def carrier(
    width: float | int = 10.0, technology: str = "lte", numerology: int = 0, configuration: int = 1
) -> Carrier:
    """Build a carrier from its width.

    Args:
        width: LTE: MHz, one of 1.4, 3, 5, 10, 15, 20. NR: resource blocks, 1 to 275.
        technology: ``"lte"`` or ``"nr"``.
        numerology: NR's mu.
        configuration: NR's group size configuration, 1 or 2.

    Raises:
        AllocgymError: a width or a numerology the technology does not have.
    """
    if technology == "lte":
        if numerology:
            raise AllocgymError(f"numerology: 0 in LTE expected, given {numerology}")
        if float(width) not in LTE_BLOCKS:
            raise AllocgymError(f"width: one of {sorted(LTE_BLOCKS)} MHz in LTE, given {width}")
        blocks = LTE_BLOCKS[float(width)]
        return Carrier(blocks, lte_group(blocks))
    if technology != "nr":
        raise unknown("technology", technology, ("lte", "nr"))
    if int(width) != width or not 1 <= width <= 275:
        raise AllocgymError(f"width: 1 to 275 resource blocks in NR, given {width}")
    if configuration not in (1, 2):
        raise AllocgymError(f"configuration: 1 or 2 expected, given {configuration}")
    return Carrier(int(width), nr_group(int(width), configuration), "nr", numerology)
