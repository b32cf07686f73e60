"""One owner a folder: who writes there says so, and is believed only as long as it lives.

The operating system keeps the lock and lets go of it when its owner dies, so a run that was killed
can be taken up at once. Who the owner is (host, process, the moment that process started) is written
beside the lock: for the sentence that refuses the second comer, and for file systems that grant a
lock to everybody.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any, Self

import filelock

from allocgym.envs.core.errors import OwnedError, WriteError
from allocgym.envs.core.untrusted import loads


def started(pid: int) -> str | None:
    """Say when a process of this machine started, or None where there is none of that number.

    Numbers are given out again: only number and start together name one process. The start is in
    ticks since the machine was started, so that setting the clock back changes nothing. Where the
    system does not tell, every living process has started ``"?"``.
    """
    try:
        # The name of the program, in brackets, may hold spaces; the fields after it may not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "?"


def myself() -> dict[str, Any]:
    """Return the identity of this process: host, pid, start."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": started(os.getpid())}


def _lives(owner: Any) -> bool:
    """Whether a process that wrote its name beside a lock, on this machine, is still there."""
    mine = myself()
    if not isinstance(owner, dict) or owner.get("host") != mine["host"] or owner == mine:
        return False
    pid = owner.get("pid")
    return isinstance(pid, int) and pid > 0 and started(pid) == owner.get("started")


class Owner:
    """The right to write in a folder, held from here until `release` or the end of the process.

    Args:
        folder: is made where it is missing.
        name: of the lock, for folders in which several things are owned apart.

    Raises:
        OwnedError: another owner lives; it is named.
        WriteError: the folder cannot be written.
    """

    def __init__(self, folder: Path | str, name: str = "owner") -> None:
        self.folder = Path(folder)
        self._card = self.folder / f"{name}.json"
        self._lock = filelock.FileLock(self.folder / f"{name}.lock", timeout=0)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except filelock.Timeout:
            raise self._refusal() from None
        except OSError as error:
            raise WriteError(
                f"{self.folder}: cannot be written ({error.strerror or error}); choose a folder "
                f"that can"
            ) from error
        if _lives(self._read()):
            self._lock.release()
            raise self._refusal()
        try:
            self._card.write_text(json.dumps(myself()))
        except OSError as error:
            self._lock.release()
            raise WriteError(
                f"{self._card}: cannot be written ({error.strerror or error}); make room and call "
                f"again"
            ) from error

    def _read(self) -> Any:
        try:
            return loads(self._card.read_text())
        except (OSError, ValueError):
            return None

    def _refusal(self) -> OwnedError:
        owner = self._read()
        who = "another process"
        if isinstance(owner, dict):
            who = f"process {owner.get('pid')} on {owner.get('host')}"
            who += ", this one," if owner == myself() else ""
        return OwnedError(
            f"{self.folder}: {who} is at work there; wait until it ends, or choose another folder"
        )

    def release(self) -> None:
        """Let go. Idempotent."""
        if self._lock.is_locked:
            with contextlib.suppress(OSError):
                self._card.unlink()
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
