import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from allocgym.envs.core.budget import (
    KAPPA,
    action_for,
    anchored_shares,
    capped_shares,
    largest_remainder,
    split_units,
)
from allocgym.envs.core.errors import AllocgymError

SIZES = st.tuples(st.integers(2, 24), st.integers(1, 4))


def floats(low, high):
    return st.floats(low, high, allow_subnormal=False)


def matrices(low, high):
    return SIZES.flatmap(lambda s: hnp.arrays(np.float64, s, elements=floats(low, high)))


@st.composite
def shares(draw, size=SIZES):
    raw = draw(size.flatmap(lambda s: hnp.arrays(np.float64, s, elements=floats(0.0, 1.0))))
    raw[0] += raw.sum(0) < 1e-3
    return raw / raw.sum(0)


@st.composite
def bounded(draw):
    """Shares, and bounds that leave room for a split."""
    x = draw(shares())
    inside = draw(shares(st.just(x.shape)))
    down = draw(hnp.arrays(np.float64, x.shape, elements=floats(0, 1)))
    up = draw(hnp.arrays(np.float64, x.shape, elements=floats(0, 1)))
    return x, inside * down, inside + (1 - inside) * up


def test_zero_action_is_the_prior():
    prior = np.array([[0.5, 0.1], [0.3, 0.9], [0.2, 0.0]])
    np.testing.assert_allclose(anchored_shares(np.zeros((3, 2)), prior), prior, rtol=1e-15)


def test_one_unit_of_action_multiplies_the_odds_by_a_hundred():
    split = anchored_shares(np.array([[1.0], [0.0]]), np.array([[0.5], [0.5]]))
    assert split[0, 0] / split[1, 0] == pytest.approx(100)


@given(matrices(-1, 1), floats(-1, 1))
def test_a_common_shift_changes_nothing(action, shift):
    prior = np.linspace(1, 2, action.size).reshape(action.shape)
    prior /= prior.sum(0)
    one, other = anchored_shares(action, prior), anchored_shares(action + shift, prior)
    np.testing.assert_allclose(one, other, rtol=1e-11)
    np.testing.assert_allclose(one.sum(0), 1, rtol=1e-12)


@given(matrices(-1, 1))
def test_padding_gets_nothing(action):
    prior = np.ones(action.shape)
    prior[-1] = 0
    prior /= prior.sum(0)
    split = anchored_shares(action, prior)
    assert (split[-1] == 0).all()
    np.testing.assert_array_equal(split[:-1] > 0, True)


@given(matrices(-1, 1))
def test_an_action_can_be_read_off_its_shares(action):
    prior = np.linspace(1, 3, action.size).reshape(action.shape)
    prior /= prior.sum(0)
    split = anchored_shares(action, prior)
    back = action_for(split, prior)
    assert (np.abs(back) <= 1).all()
    np.testing.assert_allclose(anchored_shares(back, prior), split, rtol=1e-9)


def test_shares_out_of_reach_come_back_at_the_edge_and_padding_at_zero():
    action = action_for(np.array([[1.0], [0.0], [0.0]]), np.array([[0.5], [0.5], [0.0]]))
    np.testing.assert_allclose(action, [[1.0], [-1.0], [0.0]])
    assert anchored_shares(action, np.array([[0.5], [0.5], [0.0]]))[1, 0] < 2 * np.exp(-2 * KAPPA)


@given(bounded())
def test_capped_shares_sum_to_one_within_their_bounds(case):
    x, low, high = case
    out = capped_shares(x, low, high)
    np.testing.assert_allclose(out.sum(0), 1, atol=1e-9)
    assert (out >= low - 1e-12).all() and (out <= high + 1e-12).all()


@given(bounded())
def test_capped_shares_keep_ratios_where_no_bound_binds(case):
    x, low, high = case
    out = capped_shares(x, low, high)
    free = (out > low + 1e-9) & (out < high - 1e-9) & (x > 1e-6)
    for column in range(x.shape[1]):
        ratio = out[free[:, column], column] / x[free[:, column], column]
        if len(ratio):
            np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


@given(bounded())
def test_columns_are_independent(case):
    x, low, high = case
    whole = capped_shares(x, low, high)
    for j in range(x.shape[1]):
        lone = capped_shares(x[:, j : j + 1], low[:, j : j + 1], high[:, j : j + 1])
        np.testing.assert_allclose(whole[:, j : j + 1], lone, rtol=1e-12, atol=1e-15)


def test_shares_within_bounds_are_left_alone():
    x = np.array([[0.3], [0.7]])
    assert capped_shares(x, np.zeros((2, 1)), np.ones((2, 1))) is x


def test_a_share_of_zero_is_used_once_the_others_are_full():
    out = capped_shares(np.array([[1.0], [0.0]]), np.zeros((2, 1)), np.array([[0.25], [1.0]]))
    np.testing.assert_allclose(out, [[0.25], [0.75]])


@pytest.mark.parametrize(("low", "high"), [(0.6, 1.0), (0.0, 0.4)])
def test_bounds_without_room_are_an_error(low, high):
    with pytest.raises(AllocgymError, match="no split sums to 1"):
        capped_shares(np.array([[0.9], [0.1]]), np.full((2, 1), low), np.full((2, 1), high))


@given(shares(), st.integers(0, 100_000))
def test_rounding_keeps_the_total_and_stays_next_to_what_was_asked(x, whole):
    amounts = x * whole
    units = largest_remainder(amounts, np.full(x.shape[1], whole))
    assert units.dtype == np.int64
    assert (units.sum(0) == whole).all()
    assert (np.abs(units - amounts) < 1 + 1e-6).all()
    assert (units >= 0).all()


def test_ties_go_to_the_lower_index():
    np.testing.assert_array_equal(
        largest_remainder(np.array([[0.5], [1.5], [0.5], [0.5]]), np.array([3])).T, [[1, 2, 0, 0]]
    )


def test_rounding_noise_does_not_cost_a_whole_unit():
    amounts = np.array([[3.0 - 1e-12], [0.6], [0.4 + 1e-12]])
    np.testing.assert_array_equal(largest_remainder(amounts, np.array([4])).T, [[3, 1, 0]])


@given(
    st.integers(2, 16).flatmap(lambda n: st.lists(st.integers(0, 40), min_size=n, max_size=n)),
    st.sampled_from([1, 2, 3, 7, 8]),
)
def test_both_ways_of_ranking_agree(quarters, parts):
    # Many equal remainders: padding with zeros to 20 rows takes the sorting path.
    amounts = np.array(quarters, float)[:, None] / parts
    whole = np.array([int(np.floor(amounts.sum() + 1e-9))])
    short = largest_remainder(amounts, whole)
    longer = largest_remainder(np.concatenate([amounts, np.zeros((20, 1))]), whole)
    np.testing.assert_array_equal(longer[: len(short)], short)
    assert not longer[len(short) :].any()


@st.composite
def whole_bounds(draw):
    x = draw(shares())
    n, batch = x.shape
    amount = draw(hnp.arrays(np.int64, (batch,), elements=st.integers(n, 2000)))
    other = draw(shares(st.just(x.shape)))
    inside = largest_remainder(other * amount, amount)
    low = inside - draw(hnp.arrays(np.int64, x.shape, elements=st.integers(0, 50)))
    high = inside + draw(hnp.arrays(np.int64, x.shape, elements=st.integers(0, 50)))
    return x, amount, np.maximum(low, 0), high


@given(whole_bounds())
def test_split_units_conserves_and_stays_within_whole_bounds(case):
    x, amount, low, high = case
    units = split_units(x, amount, low, high)
    np.testing.assert_array_equal(units.sum(0), amount)
    assert (units >= low).all() and (units <= high).all()


@given(shares(), st.integers(1, 5000))
def test_split_units_without_bounds_is_plain_rounding(x, amount):
    amounts = np.full(x.shape[1], amount)
    np.testing.assert_array_equal(split_units(x, amounts), largest_remainder(x * amount, amounts))


def _by_hand(amounts, whole):
    """Hamilton's method, one column at a time."""
    out = np.floor(amounts + 1e-9).astype(np.int64)
    rest = ((amounts - out) * 2**26).astype(np.int32)
    for i in range(amounts.shape[1]):
        order = np.lexsort((np.arange(len(amounts)), -rest[:, i]))
        out[order[: whole[i] - out[:, i].sum()], i] += 1
    return out


@pytest.mark.parametrize("n", [2, 31, 32, 33, 64, 128])
def test_any_number_of_claimants_is_rounded_as_by_hand(n):
    rng = np.random.default_rng(n)
    whole = rng.integers(n, 40 * n, 50)
    split = rng.dirichlet(np.full(n, 0.3), 50).T
    split[:, :10] = 1 / n  # ties
    amounts = split * whole
    units = largest_remainder(amounts, whole)
    np.testing.assert_array_equal(units, _by_hand(amounts, whole))
    np.testing.assert_array_equal(units.sum(0), whole)


def test_rows_without_a_share_change_nothing():
    rng = np.random.default_rng(0)
    whole = np.full(50, 997)
    amounts = rng.dirichlet(np.ones(32), 50).T * whole
    padded = np.concatenate([amounts, np.zeros((96, 50))])
    np.testing.assert_array_equal(
        largest_remainder(padded, whole)[:32], largest_remainder(amounts, whole)
    )
