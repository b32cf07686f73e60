r"""The near-RT RIC's socket (ColO-RAN, TRACTOR): the xApp listens, the RIC's connector connects.

In come KPI rows as comma-separated values, newline between users, in chunks of at most 300 bytes
of which continued ones begin with a prefix (``m`` in TRACTOR, ``mJQCx`` in later agents); out goes
``"0,1,2\\n3,5,9\\n\\n\\nEND"``: schedulers, groups, and three empty lists that keep what is.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.problem import PRBSlicing
from allocgym.envs.prb_slicing.scenario import SlicingScenario
from allocgym.real_backend.prb_slicing.adapter import Adapter, Reading
from allocgym.real_backend.prb_slicing.backend import StationCell
from allocgym.real_backend.prb_slicing.scope import into_reading

PREFIXES = (b"mJQCx", b"m")
ACKNOWLEDGED = b"Indication ACK\n"
KPIS = (
    "timestamp",
    "num_ues",
    "IMSI",
    "RNTI",
    "slicing_enabled",
    "slice_id",
    "slice_prb",
    "power_multiplier",
    "scheduling_policy",
    "dl_mcs",
    "dl_n_samples",
    "dl_buffer [bytes]",
    "tx_brate downlink [Mbps]",
    "tx_pkts downlink",
    "tx_errors downlink (%)",
    "dl_cqi",
    "ul_mcs",
    "ul_n_samples",
    "ul_buffer [bytes]",
    "rx_brate uplink [Mbps]",
    "rx_pkts uplink",
    "rx_errors uplink (%)",
    "ul_rssi",
    "ul_sinr",
    "phr",
    "sum_requested_prbs",
    "sum_granted_prbs",
    "dl_pmi",
    "dl_ri",
    "ul_n",
    "ul_turbo_iters",
)
"""The 31 values of a row, in order."""


def control_message(groups: list[int], schedulers: list[int]) -> bytes:
    """What the connector is sent."""
    lines = (",".join(map(str, schedulers)), ",".join(map(str, groups)), "", "", "END")
    return "\n".join(lines).encode()


def without_prefixes(chunk: bytes) -> bytes:
    """Drop the mark of a continued chunk."""
    for prefix in PREFIXES:
        if chunk.startswith(prefix):
            return chunk[len(prefix) :]
    return chunk


class RicSocket:
    """An xApp as an `Adapter`.

    Args:
        imsis: slice of each user's IMSI, in the order of users.
        slices: how many.
        rows: slice rows of a reading.
        host: address to listen on.
        port: to listen on (0 picks one; see ``address``).
        patience: seconds to wait for the connector, and for a first row.

    Raises:
        AllocgymError: the port cannot be had.
    """

    period_ms = 250.0

    def __init__(
        self,
        imsis: dict[str, int],
        slices: int,
        rows: int,
        host: str = "127.0.0.1",
        port: int = 4200,
        patience: float = 10.0,
    ) -> None:
        self.rows, self.patience = rows, patience
        self._server = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._server.bind((host, port))
        except OSError as error:
            self._server.close()
            raise AllocgymError(f"ric: cannot listen on {host}:{port} ({error})") from error
        self._server.listen(1)
        self._server.settimeout(patience)
        self.address = self._server.getsockname()
        self._peer: socket.socket | None = None
        self._left = b""
        self._latest: dict[str, dict[str, float]] = {}
        self._buffers = dict.fromkeys(imsis, 0.0)
        self._places: dict[str, tuple[int, int]] = {}
        count = [0] * slices
        for imsi, i in imsis.items():
            self._places[imsi] = (i, count[i])
            count[i] += 1
        self._users = max([*count, 1])

    def _connected(self) -> socket.socket:
        if self._peer is None:
            try:
                self._peer, _ = self._server.accept()
            except TimeoutError as error:
                raise AllocgymError(
                    f"ric: nobody connected to {self.address[0]}:{self.address[1]} "
                    f"within {self.patience:g} s"
                ) from error
        return self._peer

    def apply(self, groups: list[int], schedulers: list[int]) -> None:
        """Send the control message."""
        try:
            self._connected().sendall(control_message(groups, schedulers))
        except OSError:
            self._lose()

    def _lose(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer, self._left = None, b""

    def _take(self, seconds: float) -> None:
        """Read what has come, waiting at most so long for it, and keep each user's latest row."""
        peer = self._connected()
        ready, _, _ = select.select([peer], [], [], seconds)
        while ready:
            try:
                chunk = peer.recv(4096)
            except OSError:
                chunk = b""
            if not chunk:
                self._lose()
                return
            self._left += without_prefixes(chunk)
            ready, _, _ = select.select([peer], [], [], 0)
        *lines, self._left = self._left.split(b"\n")
        for line in lines:
            line = line.replace(ACKNOWLEDGED.strip(), b"").strip(b"\0 \r")
            values = [v for v in line.decode(errors="replace").split(",") if v != ""]
            if len(values) != len(KPIS):
                continue
            imsi = values[2].split(".")[0]
            if imsi in self._places:
                try:
                    self._latest[imsi] = {k: float(v) for k, v in zip(KPIS, values, strict=True)}
                except ValueError:
                    continue

    def read(self) -> Reading:
        """The latest row of every user; without a new one from each the reading is not valid."""
        until = time.monotonic() + self.period_ms / 1000
        self._take(0)
        while len(self._latest) < len(self._places) and self._peer is not None:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._take(left)
        out = Reading.empty(self.rows, self._users)
        for imsi, (i, u) in self._places.items():
            kpi = self._latest.pop(imsi, None)
            if kpi is None:
                out.valid = False
                continue
            into_reading(out, i, u, kpi, self._buffers[imsi], self.period_ms / 1000)
            self._buffers[imsi] = float(out.backlog[i, u])
        return out

    def close(self) -> None:
        """Close the connection and the port. Idempotent."""
        self._lose()
        self._server.close()


class RicCell(StationCell):
    """The near-RT RIC's socket: an xApp that listens where its connector connects.

    Args:
        problem: radio slicing.
        scenario: see `StationCell`.
        imsis: slice of each user's IMSI.
        port: to listen on.
        host: address to listen on.
        timed: see `LiveCell`.
    """

    needs: ClassVar[str] = "a near-RT RIC that connects"
    name = "ric"

    def __init__(
        self,
        problem: PRBSlicing,
        scenario: SlicingScenario,
        imsis: Mapping[str, int] | None = None,
        port: int = 4200,
        host: str = "127.0.0.1",
        timed: bool = True,
    ) -> None:
        if not 0 <= port <= 65_535:
            raise AllocgymError(f"port: 0 to 65535 expected, given {port}")
        super().__init__(problem, scenario, imsis, timed)
        self.port, self.host = port, host

    def connect(self, workload: Any, period: int) -> Adapter:
        """See `LiveCell.connect`."""
        slices = len(self.scenario.slices)
        return RicSocket(self.imsis, slices, self.n, self.host, self.port)
