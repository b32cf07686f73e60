"""What hypothesis makes files and arguments of: good ones, damaged; and what nobody would write."""

import copy
import json
import math
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

many = settings(
    settings.get_profile("allocgym"),
    max_examples=int(os.environ.get("ALLOCGYM_FUZZ", "0")) or 200,
    suppress_health_check=list(HealthCheck),
)

ODD = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    -(2**63),
    2**64,
    10**400,
    0.5,
    -0.0,
    1e308,
    1e-320,
    math.inf,
    -math.inf,
    math.nan,
    "",
    "0",
    "NaN",
    "text",
    "/etc/passwd",
    "../x",
    "\x00",
    "\ud800",
    "os:system",
    [],
    [[]],
    [None],
    [math.nan] * 3,
    list(range(99)),
    {},
    {"": None},
    {"a": {"b": [1]}},
]
leaves = st.one_of(
    st.sampled_from(ODD), st.integers(), st.floats(), st.text(max_size=9), st.booleans()
)
anything = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=8,
)


def _places(value, at=()):
    yield at
    parts = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        # A few of a long list stand for all.
        parts = (
            [(i, value[i]) for i in sorted({*range(min(len(value), 6)), len(value) - 1})]
            if value
            else ()
        )
    for key, part in parts:
        yield from _places(part, (*at, key))


@st.composite
def altered(draw, good):
    """JSON data with one to three places replaced, removed or doubled."""
    data = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.sampled_from(list(_places(data))))
        if not at:
            if draw(st.booleans()):
                return draw(anything)
            continue
        *way, last = at
        within = data
        for key in way:
            within = within[key]
        how = draw(st.sampled_from(["replace", "replace", "remove", "double"]))
        if how == "replace":
            within[last] = draw(anything)
        elif how == "remove":
            del within[last]
        elif isinstance(within, list):
            within.insert(last, copy.deepcopy(within[last]))
        else:
            within[draw(st.text(max_size=5))] = copy.deepcopy(within[last])
    return data


def dumped(data):
    """JSON as Python writes it: NaN and lone surrogates included."""
    return json.dumps(data).encode()


@st.composite
def damaged(draw, good):
    """Bytes cut, overwritten, doubled or with something put in between, once to thrice."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        how = draw(st.sampled_from(["cut", "flip", "put", "double", "remove"]))
        if how == "cut":
            del data[at:]
        elif how == "flip" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "put":
            data[at:at] = draw(st.binary(max_size=12))
        else:
            size = draw(st.integers(1, 64))
            part = data[at : at + size]
            data[at : at + (0 if how == "double" else size)] = part if how == "double" else b""
    return bytes(data)


# By name: hypothesis prints what it drew.
EXTREME = {
    "nested lists": b"[" * 100_000,
    "nested dictionaries": b'{"a":' * 100_000,
    "digits": b"1" * 5000,
    "infinite": b"[1e999, NaN]",
}
extreme = st.sampled_from(sorted(EXTREME)).map(EXTREME.get)


def content(good):
    """What a file may hold instead of this JSON: other values in its places, other bytes, neither."""
    return st.one_of(
        altered(good).map(dumped), damaged(dumped(good)), st.binary(max_size=64), extreme
    )
