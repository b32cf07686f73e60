"""Plans of a population: round trips, conservation, copies, errors."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core.builder import make_backend, make_problem
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
        ({"donor": 99}, "donor: members present"),
        ({"knobs": 1e9}, "knobs: values from"),
        ({"knobs": np.nan}, "knobs: values from"),
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
