"""What an agent knows, as JSON: so that a long run is taken up without telling it everything again.

Only data is written and read: numbers, texts, arrays, tensors, records, numpy's generators, containers of
these, and objects that the agent made of them. An agent that holds anything else (see
`Agent.settled` for what may be left out) has no such state and is told its whole journal again.
"""

from __future__ import annotations

import base64
import dataclasses
import importlib
import sys
from typing import Any

import numpy as np

from allocgym.agents.core.agent import Agent
from allocgym.envs.core.errors import CorruptFileError
from allocgym.envs.core.record import Record

BIT_GENERATORS = {
    kind.__name__: kind
    for kind in (np.random.PCG64, np.random.PCG64DXSM, np.random.Philox, np.random.SFC64)
}


class _Opaque(Exception):
    """Something that cannot be written down."""


def freeze(agent: Agent) -> dict[str, Any] | None:
    """Return an agent's state, or None where it has something that cannot be written down."""
    try:
        return _attributes(agent, agent.settled, set())
    except _Opaque:
        return None


def thaw(agent: Agent, state: dict[str, Any]) -> None:
    """Give an agent that has just begun the state of one that went further.

    Raises:
        CorruptFileError: the state does not fit.
    """
    try:
        _restore(agent, state)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CorruptFileError(f"state of agent {agent.name!r}: does not fit ({error})") from error


def freeze_value(value: Any) -> Any:
    """Return a value as JSON.

    Raises:
        CorruptFileError: it cannot be written down.
    """
    try:
        return _frozen(value, set())
    except _Opaque as error:
        raise CorruptFileError(f"state: {error} cannot be written down") from error


def thaw_value(data: Any) -> Any:
    """Return the value that `freeze_value` wrote down."""
    return _thawed(data)


def _attributes(thing: Any, without: tuple[str, ...], seen: set[int]) -> dict[str, Any]:
    if id(thing) in seen:
        raise _Opaque("an object in two places")
    seen.add(id(thing))
    held = {k: v for k, v in vars(thing).items() if k not in without}
    return {name: _frozen(value, seen) for name, value in held.items()}


def _frozen(value: Any, seen: set[int]) -> Any:
    if value is None or isinstance(value, (bool, str)) or type(value) in (int, float):
        return {"is": repr(value)} if type(value) is float else value
    if isinstance(value, np.generic):
        return {"scalar": _array(np.asarray(value))}
    if isinstance(value, np.ndarray):
        return {"array": _array(value)}
    if type(value).__module__ == "torch" and hasattr(value, "numpy"):
        return {"tensor": _array(value.detach().cpu().numpy())}
    if isinstance(value, Record):
        fields = {f.name: _frozen(getattr(value, f.name), seen) for f in dataclasses.fields(value)}
        return {"record": _name(type(value)), "fields": fields}
    if isinstance(value, np.random.Generator):
        state = value.bit_generator.state
        if state["bit_generator"] not in BIT_GENERATORS:
            raise _Opaque(state["bit_generator"])
        return {"generator": state["bit_generator"], "state": _frozen(state, seen)}
    if type(value) in (list, tuple, set):
        kind = type(value).__name__
        return {kind: [_frozen(v, seen) for v in (sorted(value) if kind == "set" else value)]}
    if type(value) is dict:
        return {"dict": [[_frozen(k, seen), _frozen(v, seen)] for k, v in value.items()]}
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("allocgym."):
        return {"made": _name(type(value)), "fields": _attributes(value, (), seen)}
    if type(value).__module__.startswith("allocgym.agents.") and hasattr(value, "__dict__"):
        return {"object": _attributes(value, getattr(value, "settled", ()), seen)}
    raise _Opaque(type(value).__name__)


def _array(value: np.ndarray) -> dict[str, Any]:
    """Bytes of an array, and its order in memory: sums depend on it in their last bit."""
    if value.dtype.hasobject:
        raise _Opaque("an array of objects")
    order = sorted(range(value.ndim), key=lambda axis: -abs(value.strides[axis]))
    data = value.transpose(order).copy(order="C")
    text = base64.b64encode(data.tobytes()).decode()
    return {"dtype": value.dtype.str, "shape": list(data.shape), "order": order, "data": text}


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _records(kind: type[Record] = Record) -> dict[str, type[Record]]:
    """Records that exist in this process: no name in a file makes anything be imported."""
    found = {_name(kind): kind}
    for below in kind.__subclasses__():
        found |= _records(below)
    return found


def _dataclass(name: str) -> type:
    """A dataclass of ours that is loaded; as above."""
    module, _, kind = name.partition(":")
    found = getattr(sys.modules[module], kind) if module.startswith("allocgym.") else None
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ValueError(f"{name!r} is no dataclass of ours")
    return found


def _restore(thing: Any, state: dict[str, Any]) -> None:
    for name, data in state.items():
        if isinstance(data, dict) and "object" in data:
            _restore(getattr(thing, name), data["object"])
        else:
            setattr(thing, name, _thawed(data))


def _thawed(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    kind = next(iter(data))
    held = data[kind]
    if kind == "is":
        return float(held)
    if kind == "scalar":
        return _unpacked(held)[()]
    if kind == "array":
        return _unpacked(held)
    if kind == "tensor":
        return importlib.import_module("torch").from_numpy(_unpacked(held))
    if kind == "record":
        fields = {name: _thawed(value) for name, value in data["fields"].items()}
        return _records()[held](**fields)
    if kind == "made":
        made: Any = object.__new__(_dataclass(held))
        for name, value in data["fields"].items():
            object.__setattr__(made, name, _thawed(value))
        return made
    if kind == "generator":
        bits = BIT_GENERATORS[held]()
        bits.state = _thawed(data["state"])
        return np.random.Generator(bits)
    if kind in ("list", "tuple", "set"):
        return {"list": list, "tuple": tuple, "set": set}[kind](_thawed(v) for v in held)
    if kind == "dict":
        return {_thawed(k): _thawed(v) for k, v in held}
    raise ValueError(f"no {kind!r} expected")


def _unpacked(data: dict[str, Any]) -> np.ndarray:
    flat = np.frombuffer(base64.b64decode(data["data"]), np.dtype(data["dtype"]))
    order = data["order"]
    return flat.reshape(data["shape"]).copy().transpose(np.argsort(order) if order else ())
