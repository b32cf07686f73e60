"""Where a training stands: kept beside its agent file while it goes on, gone when that is written.

A training that was killed and is begun again with the same arguments goes on from what was kept. It is
JSON (`agent_state`), with a checksum and the identity of the training; nothing in it is executed.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from allocgym.agents.core.agent_state import freeze_value, thaw_value
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import atomic, dumps, plain
from allocgym.envs.core.ownership import Owner
from allocgym.envs.core.untrusted import loads

EVERY = 1.0
"""Seconds between two checkpoints, at least."""
SHARE = 0.05
"""Of a training's time that checkpoints may take, at most."""
Score = Callable[[list[float], np.ndarray], float]


class Checkpoint:
    """The checkpoint of one training; a context in which the training is done.

    Left without an exception, the agent file is written and nothing is kept any longer; left with one,
    what was kept stays.

    Args:
        folder: of this training alone; made, and removed when it ends. None: nothing is kept.
        identity: what makes the training the one it is; plain data.
        clock: seconds.

    Attributes:
        seconds: that the training took before this process.
    """

    def __init__(
        self,
        folder: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder = folder
        self.identity: dict[str, Any] = plain(dict(identity or {}))
        self._held: Any = None
        self.seconds = 0.0
        self._clock = clock
        self._begun = clock()
        self._next = self._begun + EVERY
        self._owner: Owner | None = None

    def __enter__(self) -> Self:
        """Own the folder and read what was kept there.

        Raises:
            AllocgymError: it is of another training.
            OwnedError: another process is at this training.
        """
        if self.folder is not None:
            self._owner = Owner(self.folder)
            try:
                self._read(self.folder / "state.json")
            except BaseException:
                self._owner.release()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self.folder is None or self._owner is None:
            return
        self._owner.release()
        left = {path.name for path in self.folder.iterdir()} - {"owner.lock", "owner.json"}
        if kind is None or not left:
            shutil.rmtree(self.folder, ignore_errors=True)

    @functools.cached_property
    def state(self) -> Any:
        """What was kept last; None where nothing was. To be asked for when the problem is built:
        only classes that are loaded are made of what was read.
        """  # noqa: D205
        return thaw_value(self._held)

    @property
    def due(self) -> bool:
        """Whether it is time to keep something."""
        return self.folder is not None and self._clock() >= self._next

    def keep(self, state: Callable[[], Any]) -> None:
        """Keep a state where it is time to; a kill leaves the one before, or this one.

        Args:
            state: returns it: numbers, texts, arrays, tensors, records and containers of these. Where
                it has anything else (of a third party's environment), nothing is kept from then on.

        Raises:
            WriteError: such as on a full disk.
        """
        if not self.due or self.folder is None:
            return
        begun = self._clock()
        try:
            held = freeze_value(state())
        except CorruptFileError as error:
            warnings.warn(f"training: no checkpoints are kept ({error})", stacklevel=2)
            self._next = float("inf")
            return
        whole = {
            "identity": self.identity,
            "seconds": self.seconds + begun - self._begun,
            "state": held,
        }
        text = dumps(whole, separators=(",", ":")).encode()
        with atomic(self.folder / "state.json", "wb") as file:
            file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
        ended = self._clock()
        self._next = ended + max(EVERY, (ended - begun) / SHARE)

    def replayed(self, score: Score) -> Score:
        """Make a score remember what it came to.

        A search that is a function of its seed and of the scores it is told needs no state of its own
        kept: begun again, it is told the known scores at once, as long as it asks for the same
        parameters and seeds, and is then where it was.

        Args:
            score: of parameters on seeds.
        """
        known: list[tuple[int, float]] = list(self.state or ())
        asked = 0

        def remembered(parameters: list[float], seeds: np.ndarray) -> float:
            nonlocal asked
            question = zlib.crc32(np.array([*parameters, *seeds], float).tobytes())
            if asked < len(known) and known[asked][0] != question:
                del known[asked:]
            if asked == len(known):
                known.append((question, float(score(parameters, seeds))))
                self.keep(lambda: known)
            asked += 1
            return known[asked - 1][1]

        return remembered

    def _read(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            digest, _, text = path.read_bytes().partition(b"\n")
            if digest != hashlib.sha256(text).hexdigest().encode():
                raise ValueError("its checksum does not match")
            held = loads(text)
            identity = held["identity"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path}: damaged ({error}); training begins anew", stacklevel=3)
            return
        for name in sorted(identity.keys() | self.identity.keys()):
            was, now = identity.get(name), self.identity.get(name)
            if was != now:
                raise AllocgymError(
                    f"out: a training with {name} {was!r} was interrupted here, this one is with "
                    f"{now!r}; finish that one first, choose another file, or remove {path.parent}"
                )
        self._held, self.seconds = held["state"], float(held["seconds"])
