import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core import randomness

SEEDS = np.array([0, 1, 7, 2**40])


def test_a_draw_does_not_depend_on_when_it_is_made():
    state = randomness.stream(SEEDS, "evaluation", 3)
    forward = [randomness.uniform(state, k) for k in range(5)]
    backward = [randomness.uniform(state, k) for k in reversed(range(5))]
    for one, other in zip(forward, reversed(backward), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.lists(st.integers(0, 2**50), min_size=1, max_size=6), st.integers(0, 1000))
def test_a_draw_does_not_depend_on_the_batch(seeds, index):
    seeds = np.array(seeds)
    whole = randomness.normal(randomness.stream(seeds, "x", 4), index)
    for column, seed in enumerate(seeds):
        lone = randomness.normal(randomness.stream(np.array([seed]), "x", 4), index)
        np.testing.assert_array_equal(whole[:, column], lone[:, 0])


def test_claimants_do_not_depend_on_how_many_there_are():
    few, many = randomness.stream(SEEDS, "x", 2), randomness.stream(SEEDS, "x", 9)
    np.testing.assert_array_equal(few, many[:2])


def test_every_part_of_the_key_counts():
    base = randomness.uniform(randomness.stream(SEEDS, "a", 3), 0)
    others = [
        randomness.uniform(randomness.stream(SEEDS + 1, "a", 3), 0)[:, 1:],
        randomness.uniform(randomness.stream(SEEDS, "b", 3), 0),
        randomness.uniform(randomness.stream(SEEDS, "a", 3), 1),
    ]
    for other in others:
        assert not np.isin(other, base).any()
    assert len(np.unique(base)) == base.size


def test_an_index_per_environment_is_the_same_draw():
    state = randomness.stream(SEEDS, "x", 2)
    index = np.array([0, 3, 1, 5])
    mixed = randomness.uniform(state, index)
    for column, k in enumerate(index):
        np.testing.assert_array_equal(
            mixed[:, column], randomness.uniform(state, int(k))[:, column]
        )


def test_drawing_leaves_the_stream_alone():
    state = randomness.stream(SEEDS, "x", 2)
    before = state.copy()
    randomness.normal(state, 3)
    randomness.uniform(state, 3)
    np.testing.assert_array_equal(state, before)


def test_uniforms_are_uniform_and_open():
    u = randomness.uniform(randomness.stream(np.arange(100_000), "u"), 0)[0]
    assert 0 < u.min() and u.max() < 1
    assert u.mean() == pytest.approx(0.5, abs=0.005)
    assert u.var() == pytest.approx(1 / 12, abs=0.002)
    counts, _ = np.histogram(u, 20, (0, 1))
    assert ((counts - 5000) ** 2 / 5000).sum() < 43.8  # chi-squared, 19 degrees, 0.1 %


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_normals_have_the_moments_of_a_normal(dtype):
    z = randomness.normal(randomness.stream(np.arange(100_000), "n"), 1, dtype)[0]
    assert z.dtype == dtype and np.isfinite(z).all()
    assert z.mean() == pytest.approx(0, abs=0.015)
    assert z.var() == pytest.approx(1, abs=0.02)
    assert (z**4).mean() == pytest.approx(3, abs=0.15)


def test_neighbouring_draws_are_uncorrelated():
    state = randomness.stream(np.arange(50_000), "n", 2)
    now, later = randomness.normal(state, 0), randomness.normal(state, 1)
    pairs = [(now[0], now[1]), (now[0], later[0]), (now[0, 1:], now[0, :-1])]
    for a, b in pairs:
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.02


def test_generators_are_keyed_too():
    one = randomness.generator(3, "order").random(4)
    np.testing.assert_array_equal(one, randomness.generator(3, "order").random(4))
    assert not np.isin(randomness.generator(3, "other").random(4), one).any()
    assert not np.isin(randomness.generator(4, "order").random(4), one).any()
