"""Mistakes a user can make, told in one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 2000
"""Characters of a message."""


class AllocgymError(ValueError):
    """Something given is not usable; the message names it, what was given and what is allowed.

    A message is one line, and cut where it is long: it may quote what a stranger gave.
    """

    def __init__(self, message: str = "") -> None:
        line = " ".join(str(message).split())
        super().__init__(
            line if len(line) <= LONGEST else f"{line[: LONGEST - 200]} ... {line[-200:]}"
        )


class OutOfBudgetError(AllocgymError):
    """A decision costs more than what is left."""


class FileNeededError(AllocgymError):
    """A scenario or back end plays a file of the user's, and none was given."""


class CorruptFileError(AllocgymError):
    """A file is damaged, or is not what it claims to be."""


class WriteError(AllocgymError, OSError):
    """A file could not be written: the disk is full, or the folder may not be written to."""


class OwnedError(AllocgymError):
    """A folder belongs to a process that is still there."""


def unknown(kind: str, given: object, allowed: Iterable[str]) -> AllocgymError:
    """Build the error for a name that does not exist, with the nearest existing one."""
    names = sorted(allowed)
    text = shown(given)
    close = difflib.get_close_matches(text.strip("'"), names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return AllocgymError(f"{kind}: no {text}; one of {', '.join(names)}.{hint}")


def shown(value: object, most: int = 200) -> str:
    """Return what was given as an error shows it: its ``repr``, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits; nested without end
        return f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= most else f"{text[:most]}..."


def missing_extra(package: str, extra: str) -> ImportError:
    """Build the error for an optional dependency that is not installed."""
    return ImportError(f"{package} is needed here: pip install 'allocgym[{extra}]'")
