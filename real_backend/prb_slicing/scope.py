"""SCOPE's file interface: masks and policies written under flock, KPIs read from growing CSV files.

Bonati et al. 2021; the layout is that of ``scope_config`` in wineslab/colosseum-scope: the base
station takes an exclusive lock and re-reads the slicing files every 250 ms, and appends a row per
user to ``metrics/csv/<imsi>_metrics.csv``.
"""

from __future__ import annotations

import fcntl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.scenario import SlicingScenario
from allocgym.real_backend.prb_slicing.adapter import Adapter, Reading
from allocgym.real_backend.prb_slicing.backend import StationCell

MASK = 25
"""Characters of a mask line: one per group, unused ones 0."""


def locked_write(path: Path, text: str) -> None:
    """Replace a file's contents under an exclusive lock, as the reader expects."""
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        file.truncate()
        file.write(text)
        file.flush()


def mask(first: int, count: int) -> str:
    """A slice's groups: contiguous ones from ``first``."""
    return "".join("1" if first <= k < first + count else "0" for k in range(MASK))


def kpi_row(header: list[str], values: list[str]) -> dict[str, float]:
    """A row by column name; empty separators are dropped, what is no number is NaN."""
    out = {}
    for name, value in zip(header, values, strict=False):
        if not name or name.startswith("Unnamed"):
            continue
        try:
            out[name] = float(value)
        except ValueError:
            out[name] = float("nan")
    return out


def into_reading(
    reading: Reading, row: int, user: int, kpi: dict[str, float], before: float, seconds: float
) -> None:
    """Enter a KPI row of 36 columns for one user.

    Arrivals are what was delivered plus what the buffer grew by. The interface reports no delays:
    a user whose buffer would take longer than 10 (50) ms to drain counts its packets as late.
    """
    rate = kpi.get("tx_brate downlink [Mbps]", float("nan"))
    buffer = kpi.get("dl_buffer [bytes]", float("nan"))
    packets = kpi.get("tx_pkts downlink", 0.0)
    served = rate * 1e6 / 8 * seconds
    reading.served[row, user] = served
    reading.backlog[row, user] = buffer
    reading.arrived[row, user] = max(served + buffer - before, 0.0)
    granted = kpi.get("sum_granted_prbs", float("nan"))
    reading.granted[row, user] = granted
    reading.requested[row, user] = max(kpi.get("sum_requested_prbs", 0.0), granted)
    reading.cqi[row, user] = kpi.get("dl_cqi", float("nan"))
    drain = buffer / max(served / seconds / 1000, 1e-9) if buffer > 0 else 0.0
    reading.packets[row] += packets
    reading.late[row] += packets * (drain > 10)
    reading.late50[row] += packets * (drain > 50)
    reading.delay[row] = max(reading.delay[row], min(drain, 1e4))
    if not np.isfinite([served, buffer, granted]).all():
        reading.valid = False


class ScopeFiles:
    """Reads and writes ``scope_config``.

    Args:
        folder: ``scope_config``, with ``slicing/`` and ``metrics/csv/`` in it.
        imsis: slice of each user's IMSI, in the order of users.
        slices: how many.
        rows: slice rows of a reading (>= slices).

    Raises:
        AllocgymError: the folder is not there, or an IMSI names a slice there is not.
    """

    period_ms = 250.0

    def __init__(self, folder: Path, imsis: dict[str, int], slices: int, rows: int) -> None:
        for part in ("slicing", "metrics/csv"):
            if not (folder / part).is_dir():
                raise AllocgymError(f"scope: no folder {folder / part}")
        for imsi, i in imsis.items():
            if not 0 <= i < slices:
                raise AllocgymError(f"imsis: slices 0 to {slices - 1} expected, {imsi} has {i}")
        self.folder, self.imsis, self.slices, self.rows = folder, imsis, slices, rows
        self._at: dict[str, int] = {}
        self._headers: dict[str, list[str]] = {}
        self._buffers = dict.fromkeys(imsis, 0.0)
        self._places: dict[str, tuple[int, int]] = {}
        count = [0] * slices
        for imsi, i in imsis.items():
            self._places[imsi] = (i, count[i])
            count[i] += 1
        self._users = max([*count, 1])
        lines = "".join(f"{imsi}::{i}\n" for imsi, i in imsis.items())
        locked_write(folder / "slicing" / "ue_imsi_slice.txt", lines)
        for imsi in imsis:
            # Rows from before this run are not ours.
            file = self._csv(imsi)
            if file.exists():
                text = file.read_text()
                self._headers[imsi] = text.split("\n", 1)[0].split(",")
                self._at[imsi] = text.rfind("\n") + 1

    def _csv(self, imsi: str) -> Path:
        return self.folder / "metrics" / "csv" / f"{imsi}_metrics.csv"

    def apply(self, groups: list[int], schedulers: list[int]) -> None:
        """Write disjoint, contiguous masks (one line each) and the policies."""
        first = 0
        for i, count in enumerate(groups):
            file = self.folder / "slicing" / f"slice_allocation_mask_tenant_{i}.txt"
            locked_write(file, mask(first, count) + "\n")
            first += count
        lines = "".join(f"{i}::{s}\n" for i, s in enumerate(schedulers))
        locked_write(self.folder / "slicing" / "slice_scheduling_policy.txt", lines)

    def _new_rows(self, imsi: str) -> list[dict[str, float]]:
        """Whole rows appended since the last look; a half-written last line waits."""
        file = self._csv(imsi)
        if not file.exists():
            return []
        with open(file) as stream:
            stream.seek(self._at.get(imsi, 0))
            text = stream.read()
        end = text.rfind("\n") + 1
        self._at[imsi] = self._at.get(imsi, 0) + end
        lines = text[:end].splitlines()
        if imsi not in self._headers and lines:
            self._headers[imsi] = lines.pop(0).split(",")
        header: list[str] = self._headers.get(imsi, [])
        return [kpi_row(header, line.split(",")) for line in lines if line]

    def read(self) -> Reading:
        """The latest row of every user; a user without a new one makes the reading not valid."""
        out = Reading.empty(self.rows, self._users)
        for imsi, (i, u) in self._places.items():
            rows: list[Any] = self._new_rows(imsi)
            if not rows:
                out.valid = False
                continue
            into_reading(out, i, u, rows[-1], self._buffers[imsi], self.period_ms / 1000)
            self._buffers[imsi] = float(out.backlog[i, u])
        return out

    def close(self) -> None:
        """Nothing to let go of: the masks stay in force."""


class ScopeCell(StationCell):
    """SCOPE's file interface.

    Args:
        problem: radio slicing.
        scenario: see `StationCell`.
        folder: SCOPE's ``scope_config``.
        imsis: slice of each user's IMSI.
        timed: see `LiveCell`.
    """

    needs: ClassVar[str] = "a SCOPE base station's folder"
    name = "scope"

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        folder: str | Path = "",
        imsis: Mapping[str, int] | None = None,
        timed: bool = True,
    ) -> None:
        if not str(folder):
            raise AllocgymError("folder: SCOPE's scope_config expected, none given")
        super().__init__(problem, scenario, imsis, timed)
        self.folder = Path(folder)

    def connect(self, workload: Any, period: int) -> Adapter:
        """See `LiveCell.connect`."""
        return ScopeFiles(self.folder, self.imsis, len(self.scenario.slices), self.n)
