"""The two ends of the data plane's traffic: who replays the packets and who receives them.

Every packet carries the time it was due, so the receiver knows its delay. Slices are served by
datagrams, one a packet, or by TCP, one connection a user: there congestion control decides what is
in the network, what does not fit waits in the sender (up to the queue's size, then it is dropped
there), and what arrives is goodput.
"""

from __future__ import annotations

import ctypes
import fcntl
import selectors
import signal
import socket
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

PR_SET_PDEATHSIG = 1
SOL_SOCKET, SO_PRIORITY, SO_SNDBUFFORCE = socket.SOL_SOCKET, 12, 32
UNSENT = 0x5411
"""The ioctl that tells what a TCP socket has neither sent nor had acknowledged."""
STAMP = struct.Struct("<qHHBxxx")
"""Send time in ns, user number, payload bytes with this header, ends a recorded packet."""
FRAME = 42
"""Ethernet, IP and UDP headers: what the queue counts beside the payload."""
SMALLEST = FRAME + STAMP.size
PORT = 5001
HERE, THERE = "10.99.0.1", "10.99.0.2"
COUNTERS = 10
"""Per user: bytes and packets sent; packets received, of them later than the target, than 50 ms,
their delays in ns; the largest lag of the sender in ns; packets it dropped; bytes that wait in the
sender (TCP); bytes received, with headers."""
SENT, PACKETS, RECEIVED, LATE, LATE50, DELAY, LAG, DROPPED, WAITING, GOODPUT = range(COUNTERS)
SOCKET_BYTES = 32 << 10
"""Of a TCP user's data, what is handed to the kernel ahead of the network."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when its parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def receive(pipe: socket.socket, shared: np.ndarray, targets: list[float], streams: int) -> None:
    """Receive packets, compare stamps with the clock, count; never returns.

    Args:
        pipe: told ``b"2"`` when everything listens.
        shared: ``(users, COUNTERS)``.
        targets: delay target of each user in ms.
        streams: TCP connections to expect.
    """
    clock, mono = time.clock_gettime_ns, time.CLOCK_MONOTONIC

    def enter(view: memoryview) -> None:
        sent, user, size, last = STAMP.unpack_from(view)
        row = shared[user]
        row[GOODPUT] += size + FRAME
        if not last:
            return
        delay = clock(mono) - sent
        row[RECEIVED] += 1
        row[LATE] += delay > targets[user] * 1e6
        row[LATE50] += delay > 50e6
        row[DELAY] += delay

    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    datagrams.bind((THERE, PORT))
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((THERE, PORT))
    listener.listen(max(streams, 1))
    pipe.send(b"2")
    selector = selectors.DefaultSelector()
    for _ in range(streams):
        connection, _address = listener.accept()
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, bytearray())
    datagrams.setblocking(not streams)
    selector.register(datagrams, selectors.EVENT_READ)
    buffer = bytearray(1 << 16)
    view = memoryview(buffer)
    while True:
        if not streams:
            if datagrams.recv_into(buffer) >= STAMP.size:
                enter(view)
            continue
        for key, _events in selector.select():
            one: Any = key.fileobj
            try:
                size = one.recv_into(buffer)
            except BlockingIOError:
                continue
            if key.data is None:
                if size >= STAMP.size:
                    enter(view)
            elif size == 0:
                selector.unregister(one)
            else:
                key.data.extend(view[:size])
                _unpack(key.data, enter)


def _unpack(held: bytearray, enter: Any) -> None:
    """Enter every whole packet at the head of a stream's bytes."""
    start = 0
    while len(held) - start >= STAMP.size:
        size = STAMP.unpack_from(held, start)[2]
        if len(held) - start < size:
            break
        enter(memoryview(bytes(held[start : start + STAMP.size])))
        start += size
    del held[:start]


class Sender:
    """Replays a schedule of packets at absolute times, a socket per user.

    Args:
        shared: ``(users, COUNTERS)``.
        marks: priority of each user's packets: the class that shapes them.
        streams: whether each user is served by TCP.
        queue: bytes a TCP user's data may hold here before packets are dropped.
    """

    def __init__(
        self, shared: np.ndarray, marks: list[int], streams: list[bool], queue: int
    ) -> None:
        self.shared, self.streams, self.queue = shared, streams, queue
        self.sockets = [
            self._open(mark, by_tcp) for mark, by_tcp in zip(marks, streams, strict=True)
        ]
        self.held: list[bytearray] = [bytearray() for _ in marks]
        self.selector = selectors.DefaultSelector()

    @staticmethod
    def _open(mark: int, by_tcp: bool) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM)
        sock.setsockopt(SOL_SOCKET, SO_PRIORITY, mark)
        if by_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        else:
            try:
                # Too small a buffer would hold the sender back and hide drops.
                sock.setsockopt(SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)
            except PermissionError:
                sock.setsockopt(SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
        sock.connect((THERE, PORT))
        sock.setblocking(False)
        return sock

    def replay(self, schedule: Path, base: int) -> None:
        """Send every packet at its time after ``base`` ns on the monotonic clock."""
        with np.load(schedule) as file:
            rows = zip(*(file[k].tolist() for k in ("time", "user", "size", "last")), strict=True)
        clock, mono = time.clock_gettime_ns, time.CLOCK_MONOTONIC
        for at, user, size, last in rows:
            self._wait(base + at)
            now = clock(mono)
            row = self.shared[user]
            row[SENT] += size
            row[PACKETS] += last
            row[LAG] = max(row[LAG], now - base - at)
            payload = size - FRAME
            packet = STAMP.pack(now, user, payload, last) + bytes(payload - STAMP.size)
            if self.streams[user]:
                self._queue(user, packet, last)
                continue
            try:
                self.sockets[user].send(packet)
            except OSError:
                row[DROPPED] += 1
        while True:
            self._wait(clock(mono) + 10_000_000)

    def _wait(self, until: int) -> None:
        """Sleep, and pass on what TCP users hold whenever the kernel takes more."""
        clock, mono = time.clock_gettime_ns, time.CLOCK_MONOTONIC
        while (ahead := until - clock(mono)) > 60_000:
            if not self.selector.get_map():
                self._tell()
                time.sleep(ahead / 1e9)
                continue
            for key, _events in self.selector.select(min(ahead / 1e9, 0.01)):
                self._pass_on(key.data)
            self._tell()

    def _queue(self, user: int, packet: bytes, last: int) -> None:
        if self._waiting(user) + len(packet) > self.queue:
            self.shared[user, DROPPED] += last
            return
        self.held[user] += packet
        self._pass_on(user)

    def _pass_on(self, user: int) -> None:
        held, sock = self.held[user], self.sockets[user]
        try:
            del held[: sock.send(held)]
        except BlockingIOError:
            pass
        watched = sock in self.selector.get_map()
        if held and not watched:
            self.selector.register(sock, selectors.EVENT_WRITE, user)
        elif watched and not held:
            self.selector.unregister(sock)

    def _waiting(self, user: int) -> int:
        """Bytes of a TCP user that nobody has received yet."""
        unsent = struct.unpack("i", fcntl.ioctl(self.sockets[user], UNSENT, bytes(4)))[0]
        return len(self.held[user]) + int(unsent)

    def _tell(self) -> None:
        for user, by_tcp in enumerate(self.streams):
            if by_tcp:
                self.shared[user, WAITING] = self._waiting(user)
