"""Scenarios: named settings with checked fields, on both back ends.

A field says in its metadata between which numbers it may lie (`within`); kinds are read off the
annotations. What is given by keyword is checked before any work starts, in one sentence.
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar

import numpy as np

from allocgym.envs.core.errors import AllocgymError, shown, unknown

T = TypeVar("T")
LARGEST = 2**40
"""No number given may be larger in size, unless its field says so."""
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


def within(default: Any, low: float, high: float) -> Any:
    """Declare a field whose number, or each of whose numbers, lies in ``[low, high]``."""
    return dataclasses.field(default=default, metadata={"low": low, "high": high})


@dataclasses.dataclass(frozen=True)
class Checked:
    """A frozen dataclass that checks kinds and ranges of its fields when it is made.

    A pair of numbers is a range to draw from: its ends are in order.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            check_kind(field.name, str(field.type), value)
            low, high = (
                field.metadata.get(k, v) for k, v in (("low", -LARGEST), ("high", LARGEST))
            )
            check_numbers(field.name, value, low, high)
            if _RANGE.match(str(field.type)) and isinstance(value, tuple) and value[0] > value[1]:
                raise AllocgymError(
                    f"{field.name}: a range (low, high) expected, given {shown(value)}"
                )

    def altered(self, changes: Mapping[str, Any]) -> Mapping[str, Any]:
        """Changes that go with those asked for, such as what a new list of domains drops."""
        return changes

    def given(self, value: Any, what: str = "cost") -> Self:
        """Read a value that stands for one of us: ours where it is None, a mapping of changed fields."""
        if value is None or isinstance(value, type(self)):
            return value or self
        if not isinstance(value, Mapping):
            fields = ", ".join(f.name for f in dataclasses.fields(self))
            raise AllocgymError(
                f"{what}: a mapping with some of {fields} expected, given {value!r}"
            )
        return self.replaced(value, what)

    def replaced(self, changes: Mapping[str, Any], what: str, also: Iterable[str] = ()) -> Self:
        """Return a copy with fields replaced.

        Lists become tuples, one number given for a range stands for both its ends, and a mapping given
        for a field that is itself checked replaces fields of that.

        Args:
            changes: new values by name of the field.
            what: how errors name the whole, such as ``"scenario 'scratch'"``.
            also: names to offer beside the fields where one is unknown.

        Raises:
            AllocgymError: no such field, a value of another kind than the field's, or one out of range.
        """
        fields = {f.name: f for f in dataclasses.fields(self)}
        plain: dict[str, Any] = {}
        for name, value in self.altered(changes).items():
            if name not in fields:
                raise unknown(what, name, [*fields, *also])
            given = tuple(value) if isinstance(value, list) else value
            if _RANGE.match(str(fields[name].type)) and isinstance(given, numbers.Real):
                given = (given, given)
            before = getattr(self, name)
            plain[name] = before.given(given, name) if isinstance(before, Checked) else given
        return dataclasses.replace(self, **plain)


_RANGE = re.compile(r"tuple\[(int|float), \1\]")


@dataclasses.dataclass(frozen=True)
class Scenario(Checked):
    """A named instance, or distribution of instances, of a problem.

    Attributes:
        name: of the scenario.
    """

    name: str


def choose(table: Mapping[str, T], scenario: str | T, changes: Mapping[str, Any]) -> T:
    """Return a scenario of a table by its name (or the one given) with fields replaced.

    Raises:
        AllocgymError: no scenario or no field of that name, or a value of a wrong kind or out of range.
    """
    if isinstance(scenario, str):
        if scenario not in table:
            raise unknown("scenario", scenario, table)
        scenario = table[scenario]
    made: Any = scenario
    return made.replaced(changes, f"scenario {made.name!r}") if changes else made


def check_kind(name: str, kind: str, value: Any) -> None:
    """Raise `AllocgymError` where a value is not of the kind an annotation names.

    Kinds that are not numbers, text, truth values, tuples or mappings are not judged.
    """
    if not any(_fits(one, value) for one in _alternatives(kind)):
        raise AllocgymError(f"{name}: {kind} expected, given {shown(value)}")


def check_numbers(name: str, value: Any, low: float = -LARGEST, high: float = LARGEST) -> None:
    """Raise `AllocgymError` where a number, or one in a tuple or mapping, is NaN or out of range."""
    if isinstance(value, (tuple, list)):
        for one in value:
            check_numbers(name, one, low, high)
    elif isinstance(value, Mapping):
        for one in value.values():
            check_numbers(name, one, low, high)
    elif isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        number: Any = value
        if not low <= number <= high:  # NaN is not, either
            raise AllocgymError(
                f"{name}: a number from {low:g} to {high:g} expected, given {shown(value)}"
            )


@functools.cache
def _alternatives(kind: str) -> list[str]:
    return re.split(r"\s*\|\s*(?![^\[]*\])", kind)


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
