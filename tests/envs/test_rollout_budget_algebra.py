import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.rollout_budget import algebra, beliefs


@st.composite
def instances(draw):
    m = draw(st.integers(1, 7))
    low = np.array(draw(st.lists(st.integers(1, 3), min_size=m, max_size=m)))
    high = low + np.array(draw(st.lists(st.integers(0, 12), min_size=m, max_size=m)))
    budget = draw(st.integers(int(low.sum()), int(high.sum())))
    p = np.array(draw(st.lists(st.floats(0, 1), min_size=m, max_size=m)))
    w = np.array(draw(st.lists(st.floats(0, 3), min_size=m, max_size=m)))
    return p, w, low, high, budget


@given(instances())
def test_greedy_is_as_good_as_the_dynamic_program(case):
    p, w, low, high, budget = case
    n = algebra.greedy((algebra.known_gains(p, 16) * w[:, None])[None], budget, low, high)[0]
    assert n.sum() == budget and (n >= low).all() and (n <= high).all()
    values = w[:, None] * algebra.mixed(p[:, None], np.arange(17))
    best = algebra.dynamic_program(values, budget, low, high)[1]
    assert values[np.arange(len(p)), n].sum() == pytest.approx(best, abs=1e-9)


@given(instances())
def test_greedy_in_a_batch_is_greedy_alone(case):
    p, w, low, high, budget = case
    gains = algebra.known_gains(p, 16) * w[:, None]
    both = np.stack([gains, gains[::-1]])
    many = algebra.greedy(both, budget, np.stack([low, low[::-1]]), np.stack([high, high[::-1]]))
    np.testing.assert_array_equal(many[0], algebra.greedy(gains[None], budget, low, high)[0])
    np.testing.assert_array_equal(
        many[1], algebra.greedy(gains[None, ::-1], budget, low[::-1], high[::-1])[0]
    )


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=9))
def test_the_concave_majorant_is_the_least_one(gains):
    value = np.concatenate([[0], np.cumsum(gains)])
    steps = algebra.concave(np.array([gains]))[0]
    assert (np.diff(steps) <= 1e-9).all()
    places = range(len(value))
    # The highest chord over each place is what the majorant is there.
    highest = [
        max(
            value[a] + (value[b] - value[a]) * (x - a) / max(b - a, 1)
            for a in places
            for b in places
            if a <= x <= b
        )
        for x in places
    ]
    np.testing.assert_allclose(np.concatenate([[0], np.cumsum(steps)]), highest, atol=1e-9)


def test_an_impossible_split_is_refused():
    with pytest.raises(AllocgymError, match="cannot be split"):
        algebra.greedy(np.zeros((1, 3, 4)), 20, 1, 4)


def test_multiples_are_kept():
    gains = algebra.known_gains(np.array([[0.1, 0.5, 0.9, 0.3]]), 32)
    n = algebra.greedy(gains, 40, 4, 32, multiple=4)
    assert n.sum() == 40 and (n % 4 == 0).all() and n.min() >= 4


def test_published_values_of_p_mixed():
    found = algebra.mixed(np.array([0.01, 0.05, 0.1, 0.2, 0.5]), 8)
    np.testing.assert_allclose(found, [0.077, 0.337, 0.570, 0.832, 0.992], atol=6e-4)
    assert algebra.rollouts_until_mixed(np.array(0.01)) == pytest.approx(100.01, abs=0.01)
    assert algebra.rollouts_for(0.01, 0.9) == pytest.approx(229.1, abs=0.1)


def test_gains_sum_to_the_chance_of_a_mixed_group():
    p = np.array([0.03, 0.4, 0.9])
    np.testing.assert_allclose(algebra.known_gains(p, 12).sum(-1), algebra.mixed(p, 12))
    a, b = np.array([0.5, 2.0]), np.array([1.0, 3.0])
    rng = np.random.default_rng(0)
    p = rng.beta(a, b, (200_000, 2))
    np.testing.assert_allclose(
        algebra.beta_gains(a, b, 9).sum(-1), algebra.mixed(p, 9).mean(0), atol=3e-3
    )


def test_rloo_counts_are_neymans():
    p = np.array([[0.1, 0.5, 0.9]])
    n = algebra.rloo_counts(p, np.array([30]))[0]
    assert n.sum() == pytest.approx(30) and n[0] == pytest.approx(n[2]) and n[1] > n[0]
    np.testing.assert_allclose((n - 1) / (n[1] - 1), np.sqrt(p[0] * (1 - p[0])) / 0.5)


def test_both_ratios_differ_where_groups_do():
    tried, mixed = np.array([[2, 30]]), np.array([[0, 1]])
    assert algebra.prompt_ratio(mixed, np.ones((1, 2)))[0] == 0.5
    assert algebra.rollout_ratio(tried * mixed, tried)[0] == 30 / 32


@given(st.integers(0, 20), st.integers(0, 20))
def test_beliefs_forget_by_the_published_formula(n, k):
    k = min(n, k)
    prior_a, prior_b = np.full((1, 3), 1.0), np.full((1, 3), 2.0)
    known = beliefs.fresh(prior_a, prior_b)
    for step, (tried, right) in enumerate([(8, 3), (n, k)], 1):
        known = beliefs.update(
            known,
            np.array([[2, 0]]),
            np.array([[tried, 0.0]]),
            np.array([[right, 0.0]]),
            np.array([[float(0 < right < tried), 0.0]]),
            np.array([[5.0, 0.0]]),
            np.array([step]),
            prior_a,
            prior_b,
            np.array([0.5]),
        )
    a = 0.5 * 1 + 0.5 * 1 + 3
    expected = 0.5 * a + 0.5 * 1 + k if n else a
    assert known.a[0, 2] == pytest.approx(expected)
    assert known.a[0, 0] == 1 and known.a[0, 1] == 1 and known.visits[0, 0] == 0
    assert known.recent_n[0, 2] <= max(16, n)
    assert known.recent_k[0, 2] <= known.recent_n[0, 2]
