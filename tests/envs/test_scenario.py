import dataclasses
import re

import numpy as np
import pytest

from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.scenario import Checked, within


@dataclasses.dataclass(frozen=True)
class Thing(Checked):
    count: "int" = 1
    scale: "float" = 1.0
    name: "str" = "x"
    on: "bool" = False
    span: "tuple[float, float] | None" = None
    names: "tuple[str, ...]" = ()
    part: "float" = within(0.5, 0, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": 3},
        {"count": np.int64(3)},
        {"scale": 2},
        {"scale": np.float32(2)},
        {"name": "y"},
        {"on": True},
        {"span": (0.0, 1.0)},
        {"span": [0.0, 1.0]},
        {"span": None},
        {"names": ["a", "b"]},
        {"names": []},
    ],
)
def test_values_of_the_right_kind_are_taken(changes):
    made = Thing().replaced(changes, "thing")
    ((name, value),) = changes.items()
    assert getattr(made, name) == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(
    "changes",
    [
        {"count": "a"},
        {"count": 1.5},
        {"count": True},
        {"scale": "1"},
        {"scale": None},
        {"name": 3},
        {"on": 1},
        {"span": (1.0,)},
        {"span": ("a", "b")},
        {"span": "a"},
        {"names": "a"},
        {"names": [1]},
    ],
)
def test_a_value_of_another_kind_is_named(changes):
    ((name, value),) = changes.items()
    shown = tuple(value) if isinstance(value, list) else value
    with pytest.raises(
        AllocgymError, match=rf"{name}: .* expected, given {re.escape(repr(shown))}"
    ):
        Thing().replaced(changes, "thing")


@pytest.mark.parametrize(
    "changes",
    [
        {"part": 1.5},
        {"part": -1e-9},
        {"part": float("nan")},
        {"scale": float("inf")},
        {"count": 10**18},
        {"span": (1.0, 0.0)},
        {"span": (float("nan"), 1.0)},
    ],
)
def test_a_number_out_of_range_is_named(changes):
    ((name, _),) = changes.items()
    with pytest.raises(AllocgymError, match=rf"{name}: a (number|range) .*expected, given"):
        Thing().replaced(changes, "thing")


def test_one_number_stands_for_both_ends_of_a_range():
    assert Thing().replaced({"span": 2.0}, "thing").span == (2.0, 2.0)


def test_an_unknown_field_offers_the_nearest():
    with pytest.raises(AllocgymError, match=r"thing: no 'cuont'.*Did you mean 'count'"):
        Thing().replaced({"cuont": 1}, "thing")


@pytest.mark.parametrize("problem", ["data-mixing", "rollout-budget", "prb-slicing", "population"])
def test_every_problem_names_a_horizon_that_is_no_number(problem):
    with pytest.raises(AllocgymError, match=r"horizon.* expected, given"):
        make_backend(make_problem(problem), "twin", horizon="long")
