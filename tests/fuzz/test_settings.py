"""``--set`` and Python arguments: an environment that works, or a sentence that names the argument."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
from cases import Case, built
from hostile import ODD, anything, many
from hypothesis import given
from hypothesis import strategies as st

from allocgym.benchmarks.commands.arguments import settings as read_settings
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entries, load
from allocgym.simulators.core.public_data import DataMissingError

VALUES = st.one_of(st.sampled_from(ODD), anything)
IDS = [e.id for e in entries()]


def arguments_of(entry):
    """Names of what can be set: fields of the scenario, arguments of problem and back end."""
    kind = Case(entry, entry.vector_backend, "").kind
    scenario = kind.choose(entry.scenario, {})
    names = {f.name for f in dataclasses.fields(scenario)} - {"name"}
    for one in (kind, load(entry.problem)):
        names |= set(inspect.signature(one).parameters)
    return sorted(names - {"problem", "scenario", "num_envs", "self", "arguments", "kwargs"})


@pytest.mark.parametrize("problem", IDS)
def test_arguments(problem, harmless):
    entry = next(e for e in entries() if e.id == problem)
    built(build, problem, entry.vector_backend, None, 2).reset(np.arange(2))
    names = arguments_of(entry)

    @many
    @given(
        given=st.dictionaries(st.sampled_from(names), VALUES, min_size=1, max_size=2),
        typed=st.booleans(),
    )
    def one(given, typed):
        with harmless():
            try:
                if typed:
                    given = read_settings([f"{k}={json.dumps(v)}" for k, v in given.items()])
                backend = build(problem, entry.vector_backend, None, 2, **given)
                outcome = backend.reset(np.arange(2))
            except (DataMissingError, ImportError):
                return
            except AllocgymError as error:
                assert str(error) and "\n" not in str(error)[:200]
                return
        assert outcome.spent.shape == (2,)

    one()


@many
@given(pairs=st.lists(st.text(max_size=20), max_size=3))
def test_words_of_the_command_line(harmless, pairs):
    with harmless():
        try:
            found = read_settings(pairs)
        except AllocgymError as error:
            assert str(error)
            return
    assert all(name.isidentifier() for name in found)
