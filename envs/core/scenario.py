"""Named settings with fields replaced by keyword: one check of names and kinds for every problem."""

from __future__ import annotations

import dataclasses
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

from allocgym.envs.core.errors import AllocgymError, unknown

T = TypeVar("T")
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (numbers.Integral,),
    "float": (numbers.Real,),
    "str": (str,),
    "bool": (bool, np.bool_),
    "tuple": (tuple, list),
    "dict": (Mapping,),
    "Mapping": (Mapping,),
    "None": (type(None),),
}


def replaced(base: T, changes: Mapping[str, Any], what: str, also: Iterable[str] = ()) -> T:
    """Return a dataclass with fields replaced.

    Lists become tuples, and one number given for a range stands for both its ends.

    Args:
        base: an instance of a dataclass.
        changes: new values by name of the field.
        what: how errors name the whole, such as ``"scenario 'scratch'"``.
        also: names to offer beside the fields where one is unknown.

    Raises:
        AllocgymError: no such field, a value of another kind than the field's, or one out of range.
    """
    kinds = {f.name: str(f.type) for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    plain = {}
    for name, value in changes.items():
        if name not in kinds:
            raise unknown(what, name, [*kinds, *also])
        given = tuple(value) if isinstance(value, list) else value
        if re.match(r"tuple\[(int|float), \1\]", kinds[name]) and isinstance(given, numbers.Real):
            given = (given, given)
        if not any(_fits(one, given) for one in re.split(r"\s*\|\s*(?![^\[]*\])", kinds[name])):
            raise AllocgymError(f"{name}: {kinds[name]} expected, given {value!r}")
        plain[name] = given
    return dataclasses.replace(base, **plain)  # type: ignore[type-var]


def _fits(kind: str, value: Any) -> bool:
    """Whether a value is of the kind an annotation names; kinds not listed above are not judged."""
    name, _, inside = kind.rstrip("]").partition("[")
    if name not in _KINDS:
        return True
    if (isinstance(value, bool) and name != "bool") or not isinstance(value, _KINDS[name]):
        return False
    if name != "tuple" or "[" in inside or "|" in inside:
        return True
    members: Any = value
    parts = [part.strip() for part in inside.split(",")]
    if parts[-1] == "...":
        parts = parts[:1] * len(members)
    return len(parts) == len(members) and all(map(_fits, parts, members))
