"""Whatever an action is, it becomes a decision that keeps the rules, or is refused."""

import numpy as np
import pytest
from cases import built
from gymnasium import spaces
from hostile import many
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.environment import AllocationVectorEnv
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entries

KINDS = (
    "float32",
    "float64",
    "float16",
    "int64",
    "int8",
    "uint64",
    "bool",
    "complex64",
    "object",
    "U3",
)
VALUES = st.one_of(
    st.floats(width=32),
    st.integers(-(2**31), 2**31),
    st.sampled_from([0, 1, -1, 1e38, -1e38, 1e-38, np.nan, np.inf, -np.inf]),
)


@pytest.fixture(scope="module", params=[e.id for e in entries()])
def env(request):
    """Two environments in the middle of an episode."""
    entry = next(e for e in entries() if e.id == request.param)
    env = AllocationVectorEnv(backend=built(build, entry.id, entry.vector_backend, None, 2))
    env.reset(seed=3)
    env.action_space.seed(0)
    env.step(env.action_space.sample())
    env.problem.decode(env.action_space.sample(), env.memory)
    return env


def actions(data, env):
    space = env.problem.action_space
    shape = (2, *(space.shape or ()))
    if data.draw(st.integers(0, 4)) == 0:
        shape = tuple(data.draw(st.lists(st.integers(0, 3), max_size=3)))
    if isinstance(space, spaces.Box) or data.draw(st.integers(0, 2)) == 0:
        kind = data.draw(st.sampled_from(["float32"] * 12 + list(KINDS)))
        values = data.draw(st.lists(VALUES, min_size=1, max_size=6))
    else:
        kind = data.draw(st.sampled_from(["int64"] * 12 + list(KINDS)))
        values = data.draw(st.lists(st.integers(-1, 70), min_size=1, max_size=6))
    with np.errstate(all="ignore"):
        plain = (
            values
            if kind in ("object", "U3", "float32", "float64", "complex64")
            else [int(v) % 128 if np.isfinite(v) else 0 for v in values]
        )
        return np.resize(np.array(plain).astype(kind), shape)


@many
@given(data=st.data())
def test_every_action_is_a_decision_within_the_rules_or_is_refused(env, harmless, data):
    action = actions(data, env)
    with harmless():
        try:
            decision = env.problem.decode(action, env.memory)
        except AllocgymError as error:
            assert str(error)
            return
        cost = env.problem.cost(decision)
    assert cost.shape == (2,) and (cost >= 0).all() and (cost <= env.backend.ledger.left).all()
    env.problem.check(decision, env.memory)
    if isinstance(decision, Shares):
        assert (decision.units >= 0).all()
    if decision.fractions is not None:
        assert np.isfinite(decision.fractions).all()
