"""Radio slicing as a decision problem: splits, moves, rounding, scores."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import allocgym  # noqa: F401
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing import scores
from allocgym.envs.prb_slicing.carriers import carrier
from allocgym.envs.prb_slicing.problem import PRBSlicing, all_moves, all_splits

ID = "allocgym:allocgym/PRBSlicing-v0"


def outcome_of(mix="111", periods=2, units=(3, 5, 9), **arguments):
    problem = make_problem("prb-slicing")
    cell = make_backend(problem, "twin", mix=mix, **arguments)
    cell.reset(np.array([0]))
    for _ in range(periods):
        outcome = cell.spend(Shares(np.array([units])))
    return outcome


def test_there_are_120_splits_of_17_groups_and_seven_moves():
    table = all_splits(17, 3)
    assert table.shape == (120, 3)
    assert (table.sum(1) == 17).all() and table.min() == 1
    assert len({tuple(r) for r in table}) == 120
    assert all_moves(3) == ((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1))


def test_too_many_splits_are_refused():
    with pytest.raises(AllocgymError, match="splits"):
        all_splits(100, 8)


@pytest.mark.parametrize(
    ("width", "blocks", "groups", "last"),
    [
        (1.4, 6, 6, 1),
        (3, 15, 8, 1),
        (5, 25, 13, 1),
        (10, 50, 17, 2),
        (15, 75, 19, 3),
        (20, 100, 25, 4),
    ],
)
def test_lte_carriers_have_the_groups_of_the_specification(width, blocks, groups, last):
    made = carrier(width)
    assert (made.blocks, made.groups, made.sizes[-1]) == (blocks, groups, last)
    assert made.sizes.sum() == blocks


@given(width=st.integers(1, 275), configuration=st.integers(1, 2), mu=st.integers(0, 4))
def test_nr_groups_cover_the_carrier(width, configuration, mu):
    made = carrier(width, "nr", mu, configuration)
    assert made.sizes.sum() == width and made.sizes.min() >= 1


def test_experts_groups_are_its_blocks():
    np.testing.assert_array_equal(carrier(10).blocks_of(np.array([[3, 5, 9]])), [[9, 15, 26]])


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(2, 8),
    action=st.lists(st.floats(-1, 1), min_size=8, max_size=8),
    width=st.sampled_from([10, 15, 20]),
)
def test_a_decision_spends_every_group_and_starves_nobody(n, action, width):
    problem = PRBSlicing(n_max=8)
    kinds = (["mmtc", "urllc", "embb"] * 3)[:n]
    cell = make_backend(problem, "twin", slices=kinds, width=width, horizon=2)
    memory = problem.begin(cell.reset(np.array([1])))
    decision = problem.decode(np.array([action], np.float32), memory)
    problem.check(decision, memory)
    assert decision.units.sum() == carrier(width).groups
    again = problem.decode(problem.action_of(decision, memory), memory)
    assert np.abs(again.units - decision.units).sum() <= 2
    assert cell.scenario.carrier.blocks_of(decision.units).sum() == carrier(width).blocks


def test_every_split_survives_the_round_trip():
    for actions in ("shares", "splits"):
        problem = PRBSlicing(actions=actions)
        cell = make_backend(problem, "twin", num_envs=120, horizon=1)
        memory = problem.begin(cell.reset(np.arange(120)))
        decision = Shares(all_splits(17, 3).copy())
        back = problem.decode(problem.action_of(decision, memory), memory)
        np.testing.assert_array_equal(back.units, decision.units)


def test_moves_move_one_group_and_the_unaffordable_keep():
    problem = PRBSlicing(actions="moves")
    cell = make_backend(problem, "twin", num_envs=7, horizon=3)
    memory = problem.begin(cell.reset(np.zeros(7, np.int64)))
    after = problem.decode(np.arange(7), memory)
    change = after.units - memory.units
    np.testing.assert_array_equal(change[0], 0)
    np.testing.assert_array_equal(np.abs(change[1:]).sum(1), 2)
    np.testing.assert_array_equal(problem.action_of(after, memory), np.arange(7))
    memory.units[:] = (1, 15, 1)
    mask = problem.action_mask(memory)
    np.testing.assert_array_equal(mask[0], [1, 0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(problem.decode(np.ones(7, np.int64), memory).units, memory.units)


@pytest.mark.parametrize(
    "bad",
    [np.full((1, 3), np.nan, np.float32), np.zeros((1, 2), np.float32), np.zeros((1, 3), int)],
)
def test_bad_actions_are_refused(bad):
    problem = PRBSlicing()
    cell = make_backend(problem, "twin")
    memory = problem.begin(cell.reset(np.array([0])))
    with pytest.raises(AllocgymError, match="action"):
        problem.decode(bad, memory)


@pytest.mark.parametrize("units", [[[3, 5, 8]], [[0, 8, 9]], [[-1, 9, 9]]])
def test_check_names_what_is_wrong(units):
    problem = PRBSlicing()
    memory = problem.begin(make_backend(problem, "twin").reset(np.array([0])))
    with pytest.raises(AllocgymError, match="decision"):
        problem.check(Shares(np.array(units)), memory)


def test_tractors_score_pays_for_idleness():
    outcome = outcome_of()
    for name in ("served", "backlog", "granted", "requested", "work", "arrived"):
        setattr(outcome, name, np.zeros((1, 3, 1)))
    score, busy = scores.user_scores(outcome)
    np.testing.assert_allclose(score[0, :, 0], [1 / 9, 1.0, 0.5])
    assert not busy.any()
    assert scores.tractor_and_qos(outcome)[1] == 1.0


def test_tractors_score_is_as_published():
    outcome = outcome_of()
    outcome.served[:] = np.array([[[1000.0], [31250.0], [62500.0]]])  # 1 and 2 Mbit/s
    outcome.backlog[:] = np.array([[[0.0], [62500.0], [125000.0]]])  # 0.5 and 1 Mbit
    outcome.granted[:] = np.array([[[30.0], [1.0], [1.0]]])
    outcome.requested[:] = np.array([[[60.0], [1.0], [1.0]]])
    score, _ = scores.user_scores(outcome)
    np.testing.assert_allclose(score[0, :, 0], [0.5, 0.5, (1.5 + 0.5 - 1.0) / 3])


def test_the_constraint_form_charges_late_packets():
    outcome = outcome_of()
    outcome.packets[:], outcome.late[:] = 100.0, 0.0
    clean = scores.sla(outcome)
    outcome.late[0, 1] = 10.0
    np.testing.assert_allclose(clean - scores.sla(outcome), 5 * (0.1 - 0.001))
    outcome.late[0, 1], outcome.late[0, 2] = 0.0, 50.0
    np.testing.assert_allclose(scores.sla(outcome), clean)


@pytest.mark.parametrize("backend", ["twin", "simpy"])
@pytest.mark.parametrize(
    "arguments", [{}, {"tractor_compat": True}, {"actions": "splits"}, {"reward": "qos"}], ids=str
)
def test_gymnasium_has_no_complaint(backend, arguments):
    env = gym.make(ID, backend=backend, horizon=8, mix="111", **arguments)
    check_env(env.unwrapped, skip_render_check=True)


def test_tractors_state_and_moves():
    env = gym.make(ID, tractor_compat=True, backend="twin", mix="134", horizon=4).unwrapped
    state, _ = env.reset(seed=0)
    np.testing.assert_allclose(state, [0.1, 0.3, 0.4, 3 / 17, 5 / 17], rtol=1e-6)
    state, reward, *_ = env.step(np.int64(1))
    np.testing.assert_allclose(state[3:], [2 / 17, 6 / 17], rtol=1e-6)
    assert 0 <= reward <= 1 and env.action_masks().shape == (7,)
    with pytest.raises(AllocgymError, match="tractor_compat"):
        gym.make(ID, tractor_compat=True, reward="sla")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "generatd"}, "Did you mean 'generated'"),
        ({"width": 12}, "width"),
        ({"mix": "12"}, "mixes"),
        ({"load": 0}, "load"),
        ({"schedulers": "rrr"}, "schedulers"),
        ({"actions": "move"}, "Did you mean 'moves'"),
        ({"slices": ["embb", "voice"]}, "slices"),
        ({"horizonn": 3}, "Did you mean 'horizon'"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, message):
    with pytest.raises(AllocgymError, match=message) as caught:
        gym.make(ID, **arguments)
    assert "\n" not in str(caught.value)
