"""What the contract tests run over: every entry, back end and scenario that is registered.

Nothing is named here: a new entry is covered as soon as it is registered.
"""

import dataclasses
import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

import allocgym  # noqa: F401
from allocgym.envs.core.builder import build
from allocgym.envs.core.registry import entries, load

STEPS = 200


@dataclasses.dataclass(frozen=True)
class Case:
    """One problem on one back end in one scenario."""

    entry: object
    backend: str
    scenario: str

    @property
    def kind(self):
        target = self.entry.backends[self.backend]
        return load(target if isinstance(target, str) else target[0])

    @property
    def arguments(self):
        return {"scenario": self.scenario, "backend": self.backend, **self.kind.trial}

    @property
    def twin(self):
        """The same scenario on the batched environment's back end."""
        return dataclasses.replace(self, backend=self.entry.vector_backend)

    def env(self, **more):
        return built(gym.make, f"allocgym:{self.entry.env}", **{**self.arguments, **more}).unwrapped

    def many(self, count, **more):
        name = f"allocgym:{self.entry.env}"
        return built(gym.make_vec, name, num_envs=count, **{**self.arguments, **more}).unwrapped

    def build(self, count=1, **more):
        arguments = {**self.kind.trial, **more}
        return built(build, self.entry.id, self.backend, self.scenario, count, **arguments)


def built(make, *arguments, **keywords):
    """Build something, or skip where a package it needs is not on this machine."""
    try:
        return make(*arguments, **keywords)
    except ImportError as error:
        pytest.skip(f"needs {error.name or error}")


@functools.cache
def cases():
    """Every entry x back end x scenario that can run on this machine at all."""
    found = []
    for entry in entries():
        for backend in entry.backends:
            try:
                kind = Case(entry, backend, "").kind
            except ImportError:
                continue
            if not kind.needs:
                found += [Case(entry, backend, scenario) for scenario in kind.scenarios]
    return found


def firsts():
    """One scenario for each entry and back end: the entry's own, or else the back end's first."""
    chosen = {}
    for case in cases():
        key = (case.entry.id, case.backend)
        if key not in chosen or case.scenario == case.entry.scenario:
            chosen[key] = case
    return list(chosen.values())


def simulated(which):
    """Those whose back end holds a batch."""
    return [c for c in which if c.kind.batched]


def over(which):
    """Parametrise a test by cases."""
    return pytest.mark.parametrize(
        "case", which, ids=[f"{c.entry.id}-{c.backend}-{c.scenario}" for c in which]
    )


def actions(space, batch, periods, seed=0):
    """``periods`` batches of actions inside a space, from a seed."""
    rng = np.random.default_rng(seed)
    if isinstance(space, spaces.Box):
        drawn = rng.uniform(space.low, space.high, (periods, batch, *space.shape))
        return drawn.astype(space.dtype)
    count = space.nvec if isinstance(space, spaces.MultiDiscrete) else space.n
    return rng.integers(0, count, (periods, batch, *space.shape))


def same(one, other, row=None):
    """Observations are equal, bit for bit."""
    pairs = one.items() if isinstance(one, dict) else [("", one)]
    for key, value in pairs:
        there = other[key] if key else other
        np.testing.assert_array_equal(value, there if row is None else there[row], err_msg=key)


def copied(observation):
    """A copy that nobody else holds."""
    if isinstance(observation, dict):
        return {k: np.array(v) for k, v in observation.items()}
    return np.array(observation)


def in_space(space, observation):
    """Whether an observation lies in a space, with its dtypes."""
    if not space.contains(observation):
        return False
    pairs = (
        zip(space.spaces.items(), observation.values(), strict=True)
        if isinstance(observation, dict)
        else [(("", space), observation)]
    )
    return all(np.asarray(value).dtype == one.dtype for (_, one), value in pairs)
