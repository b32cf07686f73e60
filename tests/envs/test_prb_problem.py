"""Radio slicing as a decision problem: splits, moves, rounding, scores."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import allocgym  # noqa: F401
from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.envs.core.builder import build, make_backend, make_problem
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
    mask = problem.legal(memory)
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
        ({"mix": "99-9-9"}, "mixes"),
        ({"mix": True}, "mix"),
        ({"mixes": ["0" * 100_000]}, "mixes"),
        ({"mixes": []}, "mixes"),
        ({"mixes": ["000"]}, "mixes"),
        ({"load": float("nan")}, "load"),
        ({"load": 1e18}, "load"),
        ({"load": (3.0, 1.0)}, "load"),
        ({"width": 1e18}, "width"),
        ({"width": -1}, "width"),
        ({"numerology": 1}, "numerology"),
        ({"numerology": 10**9}, "numerology"),
        ({"slices": ["embb"] * 17}, "slices"),
        ({"slices": ["embb"]}, "slices"),
        ({"slices": "embb"}, "slices"),
        ({"period": 1e9}, "period"),
        ({"period": 15}, "period"),
        ({"period": 0}, "period"),
        ({"horizon": 10**12}, "horizon"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 2.5}, "horizon"),
        ({"queue": 1e18}, "queue"),
        ({"queue": 0}, "queue"),
        ({"targets": (300.0, 0.0, 300.0)}, "targets"),
        ({"targets": (300.0, 10.0)}, "targets"),
        ({"fixed": -1}, "fixed"),
        ({"harq": 0.95}, "harq"),
        ({"source": "video"}, "source"),
        ({"split": "tset"}, "Did you mean 'test'"),
        ({"channel": "users"}, "Did you mean 'user'"),
        ({"rate": "tb"}, "Did you mean 'tbs'"),
        ({"n_max": 2}, "n_max"),
        ({"n_max": 10**9}, "n_max"),
        ({"kappa": 1e9}, "kappa"),
        ({"move_penalty": -1}, "move_penalty"),
        ({"actions": "splits", "groups": 12}, "groups"),
        ({"actions": "splits", "n_max": 4}, "n_max"),
        ({"dtype": "float16"}, "dtype"),
        ({"backend": "replay"}, "folder: the folder of a recorded run"),
        ({"backend": "scope"}, "folder: SCOPE's"),
        ({"backend": "scope", "folder": "x"}, "imsis: the slice"),
        ({"backend": "ric"}, "imsis: the slice"),
        ({"backend": "ric", "imsis": {"1": 3}}, "imsis: slices 0 to 2"),
        ({"backend": "ric", "imsis": {"1": 0}, "port": -1}, "port"),
        ({"backend": "linux", "channel": "user"}, "channel"),
        ({"backend": "linux", "pool": True}, "pool"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, message):
    with pytest.raises(AllocgymError, match=message) as caught:
        gym.make(ID, **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("engine", ["twin", "simpy"])
@pytest.mark.parametrize("slices", [2, 3, 16])
def test_the_random_loop_runs_with_moves_that_no_slice_can_afford(engine, slices):
    kinds = (["mmtc", "urllc", "embb"] * 6)[:slices]
    env = gym.make(ID, backend=engine, slices=kinds, actions="moves", horizon=60).unwrapped
    env.reset(seed=0)
    env.action_space.seed(0)
    kept, done = 0, False
    while not done:
        before, legal = env.memory.units.copy(), env.action_masks()
        action = env.action_space.sample()
        done = env.step(action)[2]
        assert env.memory.units.min() >= 1
        if not legal[action]:
            np.testing.assert_array_equal(env.memory.units, before)
            kept += 1
    assert kept or slices < 16


def test_strict_refuses_what_a_slice_cannot_afford():
    env = gym.make(ID, actions="moves", strict=True, backend="twin", horizon=9).unwrapped
    env.reset(seed=0)
    env.step(1)
    env.step(1)
    with pytest.raises(AllocgymError, match="slice 0 has no group to spare for slice 1"):
        env.step(1)
    env.step(0)


def test_the_problem_fits_the_scenario():
    made = build("prb-slicing", "twin", slices=["embb"] * 5, width=20, actions="splits", horizon=1)
    assert (made.problem.n_max, made.problem.groups) == (5, 25)
    assert made.problem.action_space.n == len(all_splits(25, 5))
    assert made.spec.claimants == ("embb", "embb-2", "embb-3", "embb-4", "embb-5")
    assert build("prb-slicing", "twin", slices=["embb"] * 5, n_max=7).problem.n_max == 7


def test_the_plain_problem_is_what_agent_files_are_made_for():
    odd = PRBSlicing(n_max=4, tractor_compat=True)
    plain = odd.plain()
    assert (plain.actions, plain.observation, plain.n_max) == ("shares", "full", 4)
    assert plain.features == PRBSlicing().features and plain.plain() is plain


def test_scores_are_means_over_the_episode():
    cell = build("prb-slicing", "twin", "generated", 3, mix="134", load=4.0, horizon=25)
    agent = catalogue.make("demand-proportional", cell.problem)
    outcomes = rollout(agent, cell, np.arange(3))[1:]
    figures = cell.problem.scores(agent.memory)
    both = np.array([scores.tractor_and_qos(o) for o in outcomes])
    expected = [
        np.mean([scores.sla(o) for o in outcomes], 0),
        both[:, 0].mean(0),
        both[:, 1].mean(0),
        sum(o.late[:, 1] for o in outcomes) / sum(o.packets[:, 1] for o in outcomes),
        np.mean([o.throughput[:, 2] for o in outcomes], 0),
    ]
    assert next(iter(figures)).startswith("sla") and cell.problem.higher_is_better
    for (name, found), wanted in zip(figures.items(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, err_msg=name)
    np.testing.assert_array_equal(agent.memory.objective, figures["sla (mean per period)"])


def test_a_period_that_was_not_measured_is_not_scored():
    cell = build("prb-slicing", "twin", "control", 2, horizon=4)
    problem = cell.problem
    memory = problem.begin(cell.reset(np.arange(2)))
    outcome = cell.spend(Shares(np.tile((3, 5, 9), (2, 1))))
    outcome.valid = np.array([True, False])
    after = problem.update(memory, outcome)
    assert after.totals.served[0] > 0 and after.totals.served[1] == 0
    assert after.rows([1]) == memory.rows([1])


CASES = [
    {},
    {"scenario": "3gpp"},
    {"scenario": "control"},
    {"load": 8.0, "schedulers": "pf", "mix": "12-12-12"},
    {"load": 6.0, "borrow": True, "mix": "9-9-9"},
    {"load": 6.0, "pool": True},
    {"load": 6.0, "schedulers": "softmax", "mixes": ["111", "10-12-9", "333"]},
    {"load": 4.0, "slices": ["embb", "urllc", "mmtc", "embb", "urllc"] * 2},
    {"load": 5.0, "period": 10.0, "mix": "9-9-9"},
    {"actions": "moves", "observation": "tractor", "reward": "tractor"},
    {"actions": "splits", "reward": "qos", "move_penalty": 0.1},
    {"backend": "simpy", "load": 4.0},
]


@pytest.mark.parametrize("given", CASES, ids=str)
def test_a_sub_environment_is_its_scalar_twin_bit_for_bit(given):
    arguments = {"backend": "twin", "horizon": 20, **given}
    many = gym.make_vec(ID, num_envs=5, **arguments)
    many.action_space.seed(1)
    seen = [(many.reset(seed=11)[0], None, None)]
    plan = [many.action_space.sample() for _ in range(20)]
    for actions in plan:
        observation, reward, done, _, info = many.step(actions)
        seen.append((info.get("final_obs", observation), reward, done))
    assert done.all()
    for i in range(5):
        one = gym.make(ID, **arguments)
        observation, _ = one.reset(seed=11 + i)
        same(observation, seen[0][0], i)
        for actions, (expected, rewards, ends) in zip(plan, seen[1:], strict=True):
            observation, reward, done, *_ = one.step(actions[i])
            assert reward == rewards[i] and done == ends[i]
            same(observation, expected, i)


def same(one, many, i):
    if isinstance(one, dict):
        for key, value in one.items():
            np.testing.assert_array_equal(value, many[key][i], err_msg=key)
    else:
        np.testing.assert_array_equal(one, many[i])
