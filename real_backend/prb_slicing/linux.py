"""The Linux adapter: starts the data plane, probes what the kernel allows, cleans up after kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError, missing_extra
from allocgym.envs.core.untrusted import loads
from allocgym.real_backend.prb_slicing import endpoints, plane
from allocgym.real_backend.prb_slicing.adapter import Reading

STATE = "allocgym-plane-"
MOST_PACKETS = 20_000
"""Packets a second a plane agrees to send."""


def started(pid: int) -> int | None:
    """Start time of a process in ticks since boot, None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    # A zombie is gone; it waits for somebody to notice.
    return None if fields[0] == "Z" else int(fields[19])


def clean_up(root: Path | None = None) -> list[str]:
    """Remove what killed runs have left behind: helper processes and their folders.

    Namespaces and queues live only as long as helpers, and helpers ask the kernel to die with
    their parents; this is the second line. Runs that are alive are left alone.

    Returns:
        A line about everything removed.
    """
    told = []
    for folder in sorted((root or Path(tempfile.gettempdir())).glob(f"{STATE}*")):
        try:
            state = loads((folder / "state.json").read_text())
        except (OSError, ValueError):
            state = {}
        owner = state.get("owner", [0, 0])
        if state and started(owner[0]) == owner[1]:
            continue
        if not state and time.time() - folder.stat().st_mtime < 60:
            continue
        for pid, begun in state.get("helpers", []):
            if started(pid) == begun:
                os.kill(pid, signal.SIGKILL)
                told.append(f"killed helper {pid} of a run that is gone")
        shutil.rmtree(folder, ignore_errors=True)
        told.append(f"removed {folder}")
    return told


class LinuxPlane:
    """A cell made of this kernel's queues (see `plane`), with real datagrams.

    Args:
        users: users of each slice.
        targets: delay target of each slice in ms.
        schedule: packets: ``time`` ns, ``user`` number, ``size`` bytes, ``last``.
        cell: rate of the whole carrier in bit/s, at its best.
        queue: bytes of a user's queue.
        period_ms: between decisions.
        borrow: slices may use what others leave.
        streams: whether each slice is served by TCP instead of datagrams (default: none is).

    Raises:
        AllocgymError: the kernel or the machine does not allow it; the message says what is missing.
    """

    def __init__(
        self,
        users: list[int],
        targets: list[float],
        schedule: dict[str, np.ndarray],
        cell: float,
        queue: float = 190_000,
        period_ms: float = 250.0,
        borrow: bool = False,
        streams: list[bool] | None = None,
    ) -> None:
        try:
            import pyroute2  # noqa: F401
        except ImportError as error:
            raise missing_extra("pyroute2", "linux") from error
        if sys.platform != "linux":
            raise AllocgymError(f"linux: a Linux kernel is needed, this is {sys.platform}")
        rate = peak_rate(schedule["time"])
        if rate > MOST_PACKETS:
            raise AllocgymError(
                f"load: at most {MOST_PACKETS} packets in any second, the schedule has {rate}"
            )
        self.cleaned = clean_up()
        self.period_ms, self.borrow, self.users = period_ms, borrow, users
        self.streams = streams or [False] * len(users)
        self.slots = [(i, u) for i, count in enumerate(users) for u in range(count)]
        self.folder = Path(tempfile.mkdtemp(prefix=STATE))
        self._helper: subprocess.Popen[bytes] | None = None
        np.savez(self.folder / "schedule.npz", **schedule)  # type: ignore[arg-type]
        shape = (len(self.slots), endpoints.COUNTERS)
        self.counters = np.memmap(self.folder / "counters.bin", np.int64, "w+", shape=shape)
        self.counters.flush()
        self._last_counters = np.zeros(shape, np.int64)
        self._last = np.zeros((len(self.slots), 4), np.int64)
        ours, theirs = socket.socketpair()
        self._helper = subprocess.Popen(
            [sys.executable, "-m", plane.__name__, str(self.folder), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        ours.settimeout(30)
        self._stream = ours.makefile("rwb")
        self._socket = ours
        self._remember([self._helper.pid])
        setup = {
            "users": users,
            "targets": targets,
            "cell": cell,
            "queue": queue,
            "streams": self.streams,
        }
        try:
            answer = self._ask(setup)
        except (OSError, ValueError) as error:
            self.close()
            raise AllocgymError(f"linux: the data plane did not start ({error})") from error
        if "error" in answer:
            self.close()
            raise AllocgymError(f"linux: {explain(answer['error'])}")
        self.mode = answer["ok"]
        self._remember([self._helper.pid, *answer["children"]])

    def _remember(self, pids: list[int]) -> None:
        """Write down who owns what, for a later start to clean up."""
        state = {
            "owner": [os.getpid(), started(os.getpid())],
            "helpers": [[pid, started(pid)] for pid in pids],
        }
        temporary = self.folder / "state.json.new"
        temporary.write_text(json.dumps(state))
        temporary.replace(self.folder / "state.json")

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._stream.write(json.dumps(order).encode() + b"\n")
        self._stream.flush()
        line = self._stream.readline()
        if not line:
            raise OSError("the helper process ended")
        answer: dict[str, Any] = loads(line)
        return answer

    def start(self, base: int) -> None:
        """Start the traffic: time 0 of the schedule is ``base`` ns on the monotonic clock."""
        self._ask({"start": base})

    def set_rates(self, rates: list[float]) -> None:
        """Set slice rates in bit/s."""
        self._ask({"rates": rates, "borrow": self.borrow})

    def read(self) -> Reading:
        """KPIs from the kernel's classes and the receiver's counters since the last call."""
        classes = self._ask({"read": True})["classes"]
        now = np.array([classes[i][u] for i, u in self.slots], np.int64).reshape(-1, 4)
        counters = np.array(self.counters)
        fresh, seen = now - self._last, counters - self._last_counters
        waited = self._last[:, 2]
        self._last, self._last_counters = now, counters
        n, u = len(self.users), max([*self.users, 1])
        out = Reading.empty(n, u)
        for k, (i, j) in enumerate(self.slots):
            out.arrived[i, j] = seen[k, endpoints.SENT]
            lost = fresh[k, 3]
            if self.streams[i]:
                # Congestion control's own drops are sent again: what counts is what got through.
                out.served[i, j] = seen[k, endpoints.GOODPUT]
                out.backlog[i, j] = counters[k, endpoints.WAITING]
                grown = seen[k, endpoints.WAITING]
                lost = seen[k, endpoints.DROPPED]
            else:
                out.served[i, j] = fresh[k, 0]
                out.backlog[i, j] = now[k, 2]
                grown = now[k, 2] - waited[k]
            gone = seen[k, endpoints.SENT] - out.served[i, j] - grown
            out.dropped[i, j] = max(gone, 0) if lost else 0
            out.packets[i] += seen[k, endpoints.PACKETS]
            # The rate may be a user's peak of packets: those lost are late.
            out.late[i] += seen[k, endpoints.LATE] + lost
            out.late50[i] += seen[k, endpoints.LATE50] + lost
            out.delay[i] += seen[k, endpoints.DELAY] * 1e-6
        received = np.zeros(n)
        for k, (i, _) in enumerate(self.slots):
            received[i] += seen[k, endpoints.RECEIVED]
        out.delay /= np.maximum(received, 1)
        out.late, out.late50 = (np.minimum(x, out.packets) for x in (out.late, out.late50))
        return out

    @property
    def sender_lag_ms(self) -> float:
        """The furthest the sender has been behind its schedule."""
        return float(self.counters[:, endpoints.LAG].max()) / 1e6 if len(self.counters) else 0.0

    def close(self) -> None:
        """End the helpers, and with them namespaces, links and queues. Idempotent."""
        if self._helper is None:
            return
        self._socket.close()
        self._stream.close()
        try:
            self._helper.wait(5)
        except subprocess.TimeoutExpired:
            self._helper.kill()
            self._helper.wait()
        self._helper = None
        del self.counters
        self.counters = np.zeros((0, endpoints.COUNTERS), np.int64)  # type: ignore[assignment]
        shutil.rmtree(self.folder, ignore_errors=True)


def peak_rate(times: np.ndarray) -> int:
    """The most packets within a second of a schedule."""
    if not len(times):
        return 0
    return int(np.bincount((times // 1_000_000_000).astype(np.int64)).max())


def explain(error: str) -> str:
    """Say what is missing."""
    if "PermissionError" in error or "Operation not permitted" in error:
        return (
            "network namespaces are not allowed here; run as root, or allow user namespaces "
            f"(sysctl kernel.unprivileged_userns_clone=1) [{error}]"
        )
    if "No such file" in error or "not supported" in error.lower() or "(95" in error:
        return f"the kernel lacks veth, sch_htb or sch_fifo; load the modules [{error}]"
    return error


def probe() -> dict[str, str]:
    """Try a tiny data plane; what works, or ``{"missing": reason}``."""
    empty = {
        "time": np.zeros(0, np.int64),
        "user": np.zeros(0, np.int64),
        "size": np.zeros(0, np.int64),
        "last": np.zeros(0, np.int64),
    }
    try:
        made = LinuxPlane([1], [10.0], empty, 1e6)
    except (AllocgymError, ImportError) as error:
        return {"missing": str(error)}
    try:
        made.set_rates([5e5])
        made.read()
        return {"mode": made.mode, "kernel": os.uname().release}
    finally:
        made.close()
