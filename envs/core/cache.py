"""The user's own cache folder: what can be made again at the price of time."""

from __future__ import annotations

import getpass
import os
import stat
import tempfile
from pathlib import Path

from allocgym.envs.core.errors import WriteError


def cache_folder(given: str | Path | None = None) -> Path:
    """Return the folder in which base models, benchmark cells and compiled code are kept.

    It is what was given, else ``ALLOCGYM_CACHE``; else ``XDG_CACHE_HOME/allocgym`` or
    ``~/.cache/allocgym``, the first that can be written; else, for users without a home, a folder in
    the place for temporary files that is theirs alone (mode 700).

    Args:
        given: by the caller, such as an argument ``cache_dir``.

    Raises:
        WriteError: none can be made or written.
    """
    named = given or os.environ.get("ALLOCGYM_CACHE")
    if named:
        return _made(Path(named).expanduser())
    for folder in _usual():
        try:
            return _made(folder)
        except WriteError:
            continue
    return _private()


def _usual() -> list[Path]:
    found = []
    within = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(within):  # relative ones are to be ignored, says the specification
        found.append(Path(within) / "allocgym")
    home = os.path.expanduser("~")
    if os.path.isabs(home):
        found.append(Path(home) / ".cache" / "allocgym")
    return found


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(
            f"cache_dir: {folder} cannot be made ({error.strerror}); set ALLOCGYM_CACHE to a folder "
            f"that can be written"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise WriteError(
            f"cache_dir: {folder} cannot be written; set ALLOCGYM_CACHE to a folder that can"
        )
    return folder


def _private() -> Path:
    """Return a folder that nobody else can have put anything into."""
    who = os.getuid() if hasattr(os, "getuid") else getpass.getuser()
    folder = Path(tempfile.gettempdir()) / f"allocgym-{who}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise WriteError(
            f"cache_dir: {folder} cannot be made ({error.strerror}); set ALLOCGYM_CACHE to a folder "
            f"that can be written"
        ) from error
    mine = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    if (
        not stat.S_ISDIR(found.st_mode)
        or not mine
        or (os.name == "posix" and found.st_mode & 0o077)
    ):
        raise WriteError(
            f"cache_dir: {folder} may be written by others; remove it, or set ALLOCGYM_CACHE to a "
            f"folder of your own"
        )
    return folder
