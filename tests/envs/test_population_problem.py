"""Plans of a population: round trips, conservation, copies, errors."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from allocgym.agents.core import agent_file, catalogue
from allocgym.agents.core.agent import rollout
from allocgym.benchmarks.core.evaluation import compare
from allocgym.benchmarks.core.evaluation import table as as_table
from allocgym.envs.core.builder import build, make_backend, make_problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.population.problem import ranks

ID = "allocgym:allocgym/Population-v0"


def started(scenario="unknown-edge", batch=3, **arguments):
    problem = make_problem("population", **arguments)
    backend = make_backend(problem, "twin", scenario=scenario, num_envs=batch)
    return problem, backend, problem.begin(backend.reset(np.arange(batch)))


def random_action(problem, batch, seed):
    rng = np.random.default_rng(seed)
    return rng.integers(
        0, np.tile(problem.choices, problem.n_max), (batch, problem.action_space.shape[0])
    )


@given(st.integers(0, 10_000), st.sampled_from(["unknown-edge", "stragglers", "language-model"]))
def test_every_action_is_a_legal_plan_that_spends_the_grant(seed, scenario):
    problem, backend, memory = started(scenario)
    for step in range(3):
        plan = problem.decode(random_action(problem, 3, seed + step), memory)
        problem.check(plan, memory)
        outcome = backend.outcome
        assert (plan.steps.sum(1) == outcome.grant).all()
        inst = outcome.instance
        assert (plan.knobs >= inst.low[:, None] * (1 - 1e-9)).all()
        assert (plan.knobs <= inst.high[:, None] * (1 + 1e-9)).all()
        memory = problem.update(memory, backend.spend(plan))
        books = backend.ledger
        assert (books.granted == books.spent + books.wasted + books.left).all()
        assert (books.left == backend.outcome.left).all()


@given(st.integers(0, 10_000))
def test_a_plan_survives_the_round_trip(seed):
    problem, _, memory = started()
    plan = problem.decode(random_action(problem, 3, seed), memory)
    again = problem.decode(problem.action_of(plan, memory), memory)
    np.testing.assert_array_equal(again.donor, plan.donor)
    np.testing.assert_array_equal(again.steps, plan.steps)
    np.testing.assert_allclose(again.knobs, plan.knobs, rtol=1e-9)


def test_a_plan_no_action_names_is_told():
    problem, _, memory = started()
    plan = problem.decode(np.ones((3, problem.action_space.shape[0]), int), memory)
    plan.knobs = plan.knobs * 0.97
    with pytest.raises(AllocgymError, match="no action names this plan"):
        problem.action_of(plan, memory)


def test_a_copy_has_its_donors_score_and_past():
    problem, backend, memory = started()
    action = np.zeros((3, problem.n_max, 3), int)
    action[..., 1] = 1
    action[:, 1:, 0] = 1  # everybody copies the best
    plan = problem.decode(action.reshape(3, -1), memory)
    before = backend.state.heldout.T.copy()
    first, best = memory.last, memory.last.argmin(1)
    plan.steps[:] = 0
    plan.steps[:, 0] = memory.outcome.grant
    memory = problem.update(memory, backend.spend(plan))
    rows = np.arange(3)
    after = backend.outcome.heldout
    for member in range(1, problem.n_max):
        np.testing.assert_allclose(after[:, member], before[rows, best], rtol=1e-12)
    np.testing.assert_array_equal(memory.before[:, 1], first[rows, best])


def test_donors_are_resolved_all_at_once():
    problem, _, memory = started(batch=1)
    action = np.zeros((1, problem.n_max, 3), int)
    action[..., 1] = 1
    action[..., 0] = [[1, 4, 0, 3, 2, 0, 1, 4]]
    plan = problem.decode(action.reshape(1, -1), memory)
    order = np.argsort(memory.last[0])
    place = np.floor(np.array([0, 0.125, 0.25, 0.5]) * 7).astype(int)
    for member, code in enumerate(action[0, :, 0]):
        assert plan.donor[0, member] == (member if code == 0 else order[place[code - 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"donor": 99}, "donor: 0 to 7 expected"),
        ({"knobs": 1e9}, "knobs: values from"),
        ({"knobs": np.nan}, "knobs: finite numbers"),
        ({"steps": -5}, "steps: whole numbers >= 0"),
    ],
)
def test_a_plan_that_breaks_the_rules_is_told(change, message):
    problem, _, memory = started()
    plan = problem.decode(np.ones((3, problem.action_space.shape[0]), int), memory)
    for name, value in change.items():
        getattr(plan, name)[0, 0] = value
    with pytest.raises(AllocgymError, match=message):
        problem.check(plan, memory)


@pytest.mark.parametrize("bad", [99, -1])
def test_an_action_out_of_range_is_told(bad):
    problem, _, memory = started()
    action = np.zeros((3, problem.action_space.shape[0]), int)
    action[0, 0] = bad
    with pytest.raises(AllocgymError, match="action: 0 to 4 expected"):
        problem.decode(action, memory)


def test_an_inert_knob_is_refused():
    problem = make_problem("population", knobs=("learning_rate", "momentum"))
    with pytest.raises(AllocgymError, match="'momentum' changes nothing"):
        make_backend(problem, "twin").reset(np.array([0]))


def test_members_that_do_not_report_are_left_alone():
    problem, backend, memory = started("stragglers", batch=2)
    memory = problem.update(
        memory, backend.spend(problem.decode(random_action(problem, 2, 0), memory))
    )
    idle = ~backend.outcome.ready
    assert idle.any(), "one reports, the others train on"
    plan = problem.decode(random_action(problem, 2, 1), memory)
    assert (plan.steps[idle] == 0).all()
    assert (plan.donor == np.arange(problem.n_max))[idle].all()
    np.testing.assert_array_equal(plan.knobs[idle], backend.outcome.knobs[idle])


def test_the_observation_follows_a_permutation_of_the_members():
    problem, _, memory = started()
    out = memory.outcome
    order = np.random.default_rng(0).permutation(problem.n_max)
    each = ("scores", "heldout", "alive", "knobs", "used", "ready")
    moved = type(out)(
        **{name: value[:, order] if name in each else value for name, value in vars(out).items()}
    )
    one, two = problem.encode(memory), problem.encode(problem.begin(moved))
    np.testing.assert_allclose(two["claimants"], one["claimants"][:, order], rtol=1e-6)
    np.testing.assert_allclose(two["context"], one["context"], rtol=1e-5)


def test_ranks_put_the_absent_last():
    rank = ranks(np.array([[3.0, 1.0, 2.0]]), np.array([[True, False, True]]))
    np.testing.assert_array_equal(rank, [[1, 2, 0]])


@pytest.mark.filterwarnings("ignore:.*WARN.*")
@pytest.mark.parametrize("scenario", ["unknown-edge", "stragglers", "language-model-hidden"])
def test_gymnasium_accepts_the_environment(scenario):
    check_env(gym.make(ID, scenario=scenario).unwrapped, skip_render_check=True)


def test_a_batch_is_its_scalars():
    many = gym.make_vec(ID, num_envs=3)
    first, _ = many.reset(seed=5)
    actions = np.array([many.single_action_space.sample() for _ in range(3)])
    after = many.step(actions)
    for i in range(3):
        one = gym.make(ID, backend="twin")
        observation, _ = one.reset(seed=5 + i)
        np.testing.assert_array_equal(observation["claimants"], first["claimants"][i])
        step = one.step(actions[i])
        np.testing.assert_array_equal(step[0]["claimants"], after[0]["claimants"][i])
        assert step[1] == after[1][i]


def test_a_plan_is_told_in_words():
    problem, _, memory = started(batch=1, n_max=8)
    action = np.zeros((1, 8, 3), np.int64)
    action[..., 1], action[..., 2] = 1, 2
    action[0, 3] = (1, 2, 2)
    plan = problem.decode(action.reshape(1, -1), memory)
    cells = problem.tabulate(plan, [f"member-{i}" for i in range(8)])
    best = int(plan.donor[0, 3])
    assert cells["copies"] == f"3<-{best}" and list(cells) == ["steps", "copies", "learning_rate"]
    assert [int(s) for s in cells["steps"].split()] == plan.steps[0].tolist()
    assert len(cells["learning_rate"].split()) == 8


@pytest.mark.parametrize("scenario", ["unknown-edge", "hidden-horizon", "language-model"])
def test_every_row_of_a_batch_is_its_scalar_to_the_bit(scenario):
    n = 24
    many = gym.make_vec(ID, num_envs=n, scenario=scenario)
    many.reset(seed=0)
    scalars = [gym.make(ID, scenario=scenario, backend="twin") for _ in range(n)]
    for i, one in enumerate(scalars):
        one.reset(seed=i)
    rng, live = np.random.default_rng(0), np.ones(n, bool)
    for _ in range(8):
        actions = rng.integers(0, many.single_action_space.nvec, (n, 24))
        seen, reward, done, _, info = many.step(actions)
        for i in np.flatnonzero(live):
            o, r, d, _, _ = scalars[i].step(actions[i])
            source = info["final_obs"] if d else seen
            assert float(reward[i]) == r and bool(done[i]) == d
            for key, value in o.items():
                np.testing.assert_array_equal(source[key][i], value)
        live &= ~done


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_episodes_of_different_length_begin_anew_on_their_own(mode):
    n, settings = 6, {"scenario": "hidden-horizon", "horizon": [1, 4]}
    many = gym.make_vec(ID, num_envs=n, autoreset_mode=mode, **settings)
    many.reset(seed=3)
    rng = np.random.default_rng(1)
    begun, over, ends = np.arange(3, 3 + n), np.zeros(n, bool), []
    scalars = [gym.make(ID, backend="twin", **settings) for _ in range(n)]
    for i, one in enumerate(scalars):
        one.reset(seed=int(begun[i]))
    for _ in range(12):
        actions = rng.integers(0, many.single_action_space.nvec, (n, 24))
        seen, reward, done, _, _ = many.step(actions)
        for i, one in enumerate(scalars):
            again = over[i]
            if not again:
                o, r, d, _, _ = one.step(actions[i])
                assert (float(reward[i]), bool(done[i])) == (r, d)
                again = d and mode == "same_step"
                over[i] = d and mode == "next_step"
            else:
                assert reward[i] == 0 and not done[i]
                over[i] = False
            if again:
                begun[i] = (begun[i] * 1103515245 + 12345) % 2**31
                o, _ = one.reset(seed=int(begun[i]))
            np.testing.assert_array_equal(seen["claimants"][i], o["claimants"])
        ends.append(done.copy())
    assert len({tuple(e) for e in ends}) > 3, "ends are staggered"


def test_an_episode_ends_with_the_same_figures_whatever_else_is_in_the_batch():
    many = build("population", "twin", "hidden-horizon", 6)
    agent = catalogue.make("random-search", many.problem)
    outcomes = rollout(agent, many, np.arange(6))
    assert len({int(o) for o in outcomes[0].instance.horizon}) > 2
    for i in range(6):
        alone = build("population", "twin", "hidden-horizon", 1)
        one = catalogue.make("random-search", alone.problem)
        rollout(one, alone, np.array([i]))
        for name, value in alone.problem.scores(one.memory).items():
            assert many.problem.scores(agent.memory)[name][i] == value[0], name
        assert many.ledger.spent[i] == alone.ledger.spent[0] == outcomes[0].instance.total[i]


HOSTILE = [
    {"horizon": 1e18},
    {"horizon": [5, 10**18]},
    {"horizon": [9, 2]},
    {"interval": 10**18},
    {"interval": -1},
    {"members": 10**9},
    {"noise": float("nan")},
    {"noise": -1.0},
    {"cost": {"jitter": 1e18}},
    {"cost": {"jitter": float("nan")}},
    {"cost": {"devices": 0}},
    {"hidden": "yes"},
    {"family": "cubic"},
    {"n_max": 10**9},
    {"n_max": 4},
    {"knobs": "learning_rate"},
    {"knobs": ["learning_rat"]},
    {"knobs": []},
    {"knobs": ["momentum"]},
    {"dense": 2},
    {"nois": 0.1},
]


@pytest.mark.parametrize("given", HOSTILE, ids=str)
def test_a_value_that_makes_no_sense_is_told_in_one_sentence(given):
    with pytest.raises(AllocgymError) as told:
        gym.make(ID, **given)
    field, value = next(iter(given.items()))
    word = next(iter(value)) if isinstance(value, dict) else field
    assert "\n" not in str(told.value) and word in str(told.value)


def test_knobs_and_rows_are_reached_by_keyword():
    knobs = ["learning_rate", "batch_size"]
    env = gym.make(ID, knobs=knobs, n_max=5, members=3).unwrapped
    assert env.problem.knobs == tuple(knobs)
    assert env.action_space.nvec.tolist() == [5, 4, 4, 4] * 5
    observation, _ = env.reset(seed=0)
    assert observation["claimants"].shape == (5, 13) and observation["present"].sum() == 3
    assert gym.make(ID, members=20).unwrapped.problem.n_max == 20, "as many as the scenario has"
    found = compare("population", None, ["pbt"], 2, {"knobs": knobs, "horizon": 3})
    assert set(found.scores) == {"random-search", "random", "pbt", "tuned-wsd", "oracle"}
    with pytest.raises(AllocgymError, match="'learning_rate' expected by agent 'one run"):
        compare("population", None, ["wsd"], 2, {"knobs": ["batch_size"], "horizon": 3})


def test_the_default_comparison_has_a_reference_and_two_bounds():
    found = compare("population", None, [], 4)
    assert found.reference == "random-search" and found.bounds == ("tuned-wsd", "oracle")
    assert next(iter(found.scores["oracle"])) == "log test loss" and not found.higher_is_better
    means = {k: v["log test loss"].mean() for k, v in found.scores.items()}
    assert means["oracle"] <= means["tuned-wsd"] < means["random-search"]
    cells = [cell for column in as_table(found).columns for cell in column._cells]
    assert "+0.0000" in cells and not any(str(c).startswith("-0.0000") for c in cells)
    asked = compare("population", "stragglers", [], 2)
    assert set(asked.scores) == {"random-search", "random"}, "nothing bounds them there"
    with pytest.raises(AllocgymError, match="bounds nothing"):
        compare("population", "stragglers", ["oracle"], 2)


def test_scores_are_of_the_member_that_measured_best():
    problem, backend, memory = started(batch=2)
    scores, best = problem.scores(memory), backend.outcome.scores.argmin(1)
    expected = np.log(backend.outcome.heldout[np.arange(2), best])
    np.testing.assert_array_equal(scores["log test loss"], expected)
    hindsight = np.log(backend.outcome.heldout.min(1))
    np.testing.assert_array_equal(scores["log test loss, best in hindsight"], hindsight)
    assert scores["members alive"].tolist() == [8, 8]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"donor": np.full((3, 8), 99)}, "donor: 0 to 7"),
        ({"donor": np.zeros((3, 5), int)}, "plan: donor, knobs, steps of shapes"),
        ({"knobs": np.full((3, 8, 1), np.nan)}, "knobs: finite"),
        ({"steps": np.tile([800, -400, 0, 0, 0, 0, 0, 0], (3, 1))}, "steps: whole numbers >= 0"),
    ],
)
def test_a_back_end_refuses_what_nobody_could_carry_out(change, message):
    problem, backend, memory = started()
    plan = problem.decode(np.ones((3, problem.action_space.shape[0]), int), memory)
    before = backend.get_state()
    with pytest.raises(AllocgymError, match=message):
        backend.spend(type(plan)(**{**vars(plan), **change}))
    assert backend.get_state()["ledger"] == before["ledger"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_of_an_environment_goes_on_alike(copied):
    env = gym.make(ID, scenario="stragglers").unwrapped
    env.reset(seed=1)
    action = np.ones(24, int)
    env.step(action)
    other = copied(env)
    one, two = env.step(action), other.step(action)
    np.testing.assert_array_equal(one[0]["claimants"], two[0]["claimants"])
    assert one[1:4] == two[1:4]


def test_what_a_file_is_called_decides_nothing(tmp_path):
    problem, backend, _ = started()
    shipped = catalogue.make("learned", problem)
    agent_file.save(tmp_path / "other.zip", problem, *shipped.to_file())
    other = catalogue.make(tmp_path / "other.zip", problem)
    assert (shipped.name, other.name) == ("learned", "other")
    assert rollout(shipped, backend, np.arange(3)) == rollout(other, backend, np.arange(3))
