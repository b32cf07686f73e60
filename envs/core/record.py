"""Structs of arrays with a batch axis: what problems, back ends and agents exchange and remember."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, get_type_hints

import numpy as np


@dataclasses.dataclass(eq=False)
class Record:
    """A struct of arrays that share a batch axis.

    Records are equal when all their arrays are (declare subclasses with ``eq=False``). Fields that are
    records themselves share the batch; what is neither array nor record is common to the whole batch.
    Records travel to the journal as JSON: float64 survives that bit for bit.

    Attributes:
        batch_axis: 0 in what is exchanged; -1 in `Columns`, what simulators keep.
    """

    batch_axis: ClassVar[int] = 0
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self))
        return all(
            a == b if isinstance(a, Record) else bool(np.array_equal(a, b)) for a, b in pairs
        )

    def map(self, function: Callable[[Any], Any]) -> Self:
        """Apply a function to every array (to tensors, a copy)."""

        def apply(value: Any) -> Any:
            if isinstance(value, Record):
                return value.map(function)
            return function(value) if hasattr(value, "dtype") else value

        return self._each(apply)

    def where(self, mask: np.ndarray, other: Self) -> Self:
        """Take the environments of ``other`` where ``mask`` is true, ours elsewhere."""

        def join(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
            shaped = mask if axis else mask.reshape(mask.shape + (1,) * (ours.ndim - 1))
            return np.where(shaped, theirs, ours)

        return self._combined(other, join)

    def put(self, mask: np.ndarray, fresh: Self) -> Self:
        """Return a copy in which the environments in ``mask`` are those of ``fresh``.

        Args:
            mask: ``(batch,)`` bool.
            fresh: holds as many environments as ``mask`` has true entries, in their order.
        """

        def join(ours: np.ndarray, theirs: np.ndarray, axis: int) -> np.ndarray:
            out = ours.copy()
            out[(..., mask) if axis else mask] = theirs
            return out

        return self._combined(fresh, join)

    def rows(self, index: Any) -> Self:
        """Select environments (an integer array, a slice or a mask); the batch axis stays."""

        def pick(value: Any) -> Any:
            if isinstance(value, Record):
                return value.rows(index)
            if not hasattr(value, "dtype"):
                return value
            return value[..., index] if self.batch_axis else value[index]

        return self._each(pick)

    def _each(self, function: Callable[[Any], Any]) -> Self:
        names = [f.name for f in dataclasses.fields(self)]
        return type(self)(**{name: function(getattr(self, name)) for name in names})

    def _combined(self, other: Self, join: Callable[[np.ndarray, np.ndarray, int], Any]) -> Self:
        """Join two records array by array, nested ones by their own batch axis."""

        def pick(ours: Any, theirs: Any) -> Any:
            if isinstance(ours, Record):
                return ours._combined(theirs, join)
            return join(ours, theirs, self.batch_axis) if isinstance(ours, np.ndarray) else ours

        names = [f.name for f in dataclasses.fields(self)]
        return type(self)(**{k: pick(getattr(self, k), getattr(other, k)) for k in names})

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and numbers, with the dtype of each array."""

        def plain(value: Any) -> Any:
            if isinstance(value, Record):
                return value.to_json()
            array = np.asarray(value)
            return {"dtype": array.dtype.str, "data": array.tolist()}

        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def nested(cls) -> dict[str, type[Record]]:
        """Fields that are records themselves, by name."""
        return _nested(cls)  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Rebuild a record from `to_json`, bit for bit."""
        kinds = cls.nested()
        out: dict[str, Any] = {}
        for name, value in data.items():
            kind = kinds.get(name)
            if kind is not None:
                out[name] = kind.from_json(value)
            else:
                out[name] = np.array(value["data"], dtype=np.dtype(value["dtype"]))
        return cls(**out)


@dataclasses.dataclass(eq=False)
class Columns(Record):
    """A record whose arrays carry the batch last, ``(n, batch)``: long rows, fast arithmetic."""

    batch_axis: ClassVar[int] = -1


@functools.cache
def _nested(cls: type[Record]) -> dict[str, type[Record]]:
    """Fields of a record that are records themselves, by name."""
    hints = get_type_hints(cls)
    return {k: v for k, v in hints.items() if isinstance(v, type) and issubclass(v, Record)}
