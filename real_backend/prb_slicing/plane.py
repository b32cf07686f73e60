"""The data plane in the kernel: network namespaces, a veth pair, HTB classes, real packets.

``python -m allocgym.real_backend.prb_slicing.plane FOLDER`` is the helper process a `LinuxPlane`
starts. It makes a namespace of its own (with a user namespace where it is not privileged), forks
a receiver with another, joins the two by a veth pair and shapes its end: a root class for the
carrier, a class per slice, a child class with a FIFO per user. Namespaces have no name: they, the
links and the queues in them vanish with the last process that is in them, whatever killed it.
Nothing outside these two namespaces ever receives a packet.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.real_backend.prb_slicing.endpoints import (
    COUNTERS,
    HERE,
    PORT,
    THERE,
    Sender,
    die_with_parent,
    receive,
)

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
ROOT = 0x10000


def unshare(flags: int) -> None:
    """Leave the parent's namespaces.

    Raises:
        OSError: the kernel does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def enter_namespaces() -> str:
    """Make a network namespace; inside a user namespace where privileges are missing."""
    uid, gid = os.getuid(), os.getgid()
    try:
        unshare(CLONE_NEWNET)
        return "privileged"
    except PermissionError:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        return "user namespace"


def class_id(row: int, user: int | None = None) -> int:
    """Handle of a slice's class, or of a user's."""
    return ROOT | (0x10 + row if user is None else 0x100 + 0x40 * row + user)


def kbit(rate: float) -> str:
    """Bits a second as the kernel's tools write it."""
    return f"{max(int(rate), 8)}bit"


def _no_table(parameters: Any, kind: str) -> list[int]:
    """Stand in for the transmission times of 256 sizes, which take a millisecond to compute.

    The kernel has computed its own since Linux 3.8. It reads the table only to tell what the link is,
    and takes it for Ethernet, which it is, where the first entry is 0 (``__detect_linklayer``).
    """
    parameters[f"{kind}_cell_align"], parameters[f"{kind}_cell_log"] = -1, 3
    return [0] * 256


class Shaper:
    """HTB on one interface, through netlink.

    Args:
        ipr: a `pyroute2.IPRoute` in the right namespace.
        index: of the interface.
        users: users of each slice.
        cell: rate of the whole carrier, bit/s.
        queue: bytes of a user's FIFO.
    """

    def __init__(self, ipr: Any, index: int, users: list[int], cell: float, queue: int) -> None:
        from pyroute2.netlink.rtnl.tcmsg import plugins, sched_htb, sched_pfifo

        # A FIFO limited in bytes takes the same option as the one limited in packets.
        plugins.setdefault("bfifo", sched_pfifo)
        sched_htb.options.htb_parms.calc_rtab = _no_table
        self.ipr, self.index, self.users = ipr, index, users
        self.cell = cell
        self._applied: dict[int, tuple[str, bool]] = {}
        ipr.tc("add", "htb", index, ROOT, default=0)
        self._set("add", ROOT | 1, ROOT, cell, cell)
        for i, count in enumerate(users):
            self._set("add", class_id(i), ROOT | 1, cell / len(users), cell)
            for u in range(count):
                # A trickle of its own, the rest borrowed in equal turns: max-min by deficit.
                self._set("add", class_id(i, u), class_id(i), 8000.0, cell)
                handle = (0x100 + 0x40 * i + u) << 16
                ipr.tc("add", "bfifo", index, handle, parent=class_id(i, u), limit=queue)

    def _set(self, verb: str, handle: int, parent: int, rate: float, ceil: float) -> None:
        self.ipr.tc(
            f"{verb}-class" if verb == "add" else "change-class",
            "htb",
            self.index,
            handle,
            parent=parent,
            rate=kbit(rate),
            ceil=kbit(ceil),
            burst=1600,
            cburst=1600,
            quantum=1514,
        )

    def apply(self, rates: list[float], borrow: bool = False) -> None:
        """Set every slice's rate, bit/s; with ``borrow`` a slice may use what others leave."""
        for i, rate in enumerate(rates):
            wanted = (kbit(rate), borrow)
            if self._applied.get(i) != wanted:
                self._set("change", class_id(i), ROOT | 1, rate, self.cell if borrow else rate)
                self._applied[i] = wanted

    def read(self) -> list[list[tuple[int, int, int, int]]]:
        """Per slice and user: bytes and packets sent, bytes waiting, packets dropped."""
        out = [[(0, 0, 0, 0)] * count for count in self.users]
        where = {class_id(i, u): (i, u) for i, count in enumerate(self.users) for u in range(count)}
        for message in self.ipr.get_classes(index=self.index):
            place = where.get(message["handle"])
            if place is None:
                continue
            stats = message.get_attr("TCA_STATS2")
            basic = stats.get_attr("TCA_STATS_BASIC")
            queue = stats.get_attr("TCA_STATS_QUEUE")
            out[place[0]][place[1]] = (
                basic["bytes"],
                basic["packets"],
                queue["backlog"],
                queue["drops"],
            )
        return out


def receiver(pipe: socket.socket, shared: np.ndarray, targets: list[float], streams: int) -> None:
    """The users' side: a namespace of its own, joined by a link, that receives and counts."""
    die_with_parent()
    unshare(CLONE_NEWNET)
    pipe.send(b"1")
    pipe.recv(1)
    from pyroute2 import IPRoute

    with IPRoute() as ipr:
        index = ipr.link_lookup(ifname="users0")[0]
        ipr.addr("add", index=index, address=THERE, prefixlen=24)
        ipr.link("set", index=index, state="up")
    receive(pipe, shared, targets, streams)


def sender(
    pipe: socket.socket,
    shared: np.ndarray,
    slots: list[tuple[int, int]],
    streams: list[bool],
    queue: int,
    folder: Path,
) -> None:
    """The network's side: replay the schedule when told the time it begins."""
    die_with_parent()
    pipe.recv(1)
    one = Sender(shared, [class_id(i, u) for i, u in slots], streams, queue)
    pipe.send(b"1")
    one.replay(folder / "schedule.npz", int(pipe.recv(64)))


def link(child: int) -> tuple[Any, int]:
    """Make the veth pair, move one end to the receiver; returns netlink and our end's index."""
    from pyroute2 import IPRoute

    ipr = IPRoute()
    ipr.link("add", ifname="cell0", kind="veth", peer={"ifname": "users0"})
    ipr.link("set", index=ipr.link_lookup(ifname="users0")[0], net_ns_pid=child)
    index = int(ipr.link_lookup(ifname="cell0")[0])
    ipr.addr("add", index=index, address=HERE, prefixlen=24)
    # Single frames into the queue, as on the air, not bundles that the other end takes apart.
    ipr.link("set", index=index, state="up", gso_max_segs=1)
    return ipr, index


def fork(work: Any, *arguments: Any) -> tuple[int, socket.socket]:
    """Run ``work(pipe, ...)`` in a child process; it never returns from there."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            work(theirs, *arguments)
        finally:
            os._exit(1)
    return child, ours


def serve(folder: Path, channel: socket.socket) -> None:
    """Set the plane up and answer one JSON line after another until the other side goes away."""
    die_with_parent()
    try:
        # A data plane is not to wait for other work on the machine.
        os.nice(-15)
    except PermissionError:
        pass
    # Nor for the collector: what exists now stays, and messages leave little behind.
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    stream = channel.makefile("rwb")
    setup = json.loads(stream.readline())
    users = setup["users"]
    slots = [(i, u) for i, count in enumerate(users) for u in range(count)]
    counters = np.memmap(folder / "counters.bin", np.int64, "r+", shape=(len(slots), COUNTERS))
    children: list[int] = []
    try:
        mode = enter_namespaces()
        targets = [setup["targets"][i] for i, _ in slots]
        streams = [setup["streams"][i] for i, _ in slots]
        child, users_end = fork(receiver, counters, targets, sum(streams))
        children.append(child)
        users_end.recv(1)
        queue = int(setup["queue"])
        feeder, network_end = fork(sender, counters, slots, streams, queue, folder)
        children.append(feeder)
        ipr, index = link(child)
        users_end.send(b"1")
        users_end.recv(1)
        shaper = Shaper(ipr, index, users, setup["cell"], queue)
        # Learn the neighbour before anything is timed.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as warm:
            warm.sendto(b"0", (THERE, PORT))
        network_end.send(b"1")
        network_end.recv(1)
        answer: dict[str, Any] = {"ok": mode, "children": children}
    except Exception as error:  # told to the parent, in one sentence
        answer = {"error": f"{type(error).__name__}: {error}"}
    while True:
        stream.write(json.dumps(answer).encode() + b"\n")
        stream.flush()
        line = stream.readline()
        if not line or "error" in answer:
            break
        order = json.loads(line)
        answer = {"ok": True}
        if "start" in order:
            network_end.send(str(order["start"]).encode())
        if "read" in order:
            answer["classes"] = shaper.read()
        if "rates" in order:
            shaper.apply(order["rates"], order["borrow"])
    for one in children:
        os.kill(one, signal.SIGKILL)
        os.waitpid(one, 0)


if __name__ == "__main__":
    serve(Path(sys.argv[1]), socket.socket(fileno=int(sys.argv[2])))
