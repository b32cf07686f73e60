"""Curve budgets: units are conserved, nothing is copied, what was not recorded is not shown."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from allocgym.agents.core import agent_file, catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.curve_budget.priority import LinearPriority
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.curve_budget.problem import Allotment
from allocgym.envs.population.records import Plan
from allocgym.simulators.core import public_data
from allocgym.simulators.curve_budget.scenario import POINTS

ID = "allocgym:allocgym/CurveBudget-v0"
RULES = [n for n in catalogue.names("curve-budget") if n != "learned"]


@pytest.fixture
def backend():
    return make_backend(make_problem("curve-budget"), "replay", num_envs=6)


def test_the_environment_keeps_gymnasiums_rules():
    check_env(gym.make(ID, full=1).unwrapped, skip_render_check=True)
    many = gym.make_vec(ID, num_envs=3, full=1)
    many.reset(seed=0)
    for _ in range(60):
        many.step(many.action_space.sample())


@given(st.integers(0, 2**32 - 1), st.integers(2, 16), st.integers(1, 9))
def test_units_are_conserved_and_closed_curves_stay_closed(seed, count, grant):
    problem = make_problem("curve-budget")
    backend = make_backend(
        problem, "replay", num_envs=2, configurations=count, full=1.5, grant=grant
    )
    out = backend.reset(np.array([seed, seed + 1]))
    memory, rng = problem.begin(out), np.random.default_rng(seed)
    while not out.done.all():
        action = rng.integers(0, 3, (2, 16))
        decision = problem.decode(action, memory)
        problem.check(decision, memory)
        assert (
            problem.decode(problem.action_of(decision, memory), memory).units == decision.units
        ).all()
        before, out = out, backend.spend(decision)
        memory = problem.update(memory, out)
        assert (out.closed >= before.closed).all()
        assert not (decision.units * before.closed).any()
        assert (out.scores <= before.scores + 1e-12).all()
        assert (out.used.sum(1) + out.left == out.instance.total).all()
        for key, array in problem.encode(memory).items():
            assert np.isfinite(array).all(), key
    # Over before the budget is spent only where no open curve has points left.
    rest = problem.room(out).sum(1)
    assert ((out.left == 0) | (rest == 0)).all()


@pytest.mark.parametrize("name", [*RULES, "priority"])
def test_agents_spend_all_and_a_score_is_one_that_was_recorded(backend, name):
    problem = backend.problem
    agent = LinearPriority(problem) if name == "priority" else catalogue.make(name, problem)
    outcomes = rollout(agent, backend, np.arange(6))
    last = outcomes[-1]
    assert (last.left == 0).all()
    assert (last.scores == backend.shelf.valid[backend.state.curve, last.used]).all()
    times = agent.memory.reached
    assert ((times >= 1) & ((times <= 4 * (POINTS - 1)) | np.isinf(times))).all()


def test_asha_and_hyperband_touch_more_configurations_than_random_search(backend):
    touched = {}
    for name in ("random-search", "asha", "hyperband"):
        last = rollout(catalogue.make(name, backend.problem), backend, np.arange(6))[-1]
        touched[name] = (last.used > 0).sum(1).mean()
    assert touched["random-search"] < 6 < touched["asha"]
    assert touched["hyperband"] > 9


def test_an_instance_is_a_function_of_its_seed(backend):
    one = backend.reset(np.arange(6))
    alone = make_backend(make_problem("curve-budget"), "replay").reset(np.array([4]))
    assert (one.scores[4] == alone.scores[0]).all()
    assert one.instance.target[4] == alone.instance.target[0]


def test_copying_is_refused(backend):
    problem, out = backend.problem, backend.reset(np.arange(6))
    plan = Plan(np.zeros((6, 16), int), np.ones((6, 16, 1)), np.zeros((6, 16), int))
    with pytest.raises(AllocgymError, match="nothing can be copied"):
        problem.check(plan, problem.begin(out))
    with pytest.raises(AllocgymError, match="Allotment expected, given Plan"):
        backend.spend(plan)
    with pytest.raises(AllocgymError, match="units"):
        backend.spend(Allotment(np.full((6, 16), -1), np.zeros((6, 16), bool)))
    with pytest.raises(AllocgymError, match=r"tasksett.*Did you mean 'taskset'"):
        make_backend(problem, "replay", scenario="tasksett")
    with pytest.raises(AllocgymError, match="asha"):
        catalogue.make("ashaa", problem)


def test_a_tuned_agent_survives_its_file(backend, tmp_path):
    agent = LinearPriority(backend.problem)
    agent_file.save(tmp_path / "curves.zip", backend.problem, *agent.to_file())
    again = catalogue.make(tmp_path / "curves.zip", backend.problem)
    a, b = (rollout(x, backend, np.arange(6))[-1] for x in (agent, again))
    assert a == b


@pytest.mark.parametrize("scenario", ["taskset", "algoperf"])
def test_public_curves_load(scenario):
    folder = {"taskset": "population/taskset_dpl", "algoperf": "population/algoperf"}[scenario]
    if not public_data.available(folder):
        pytest.skip(f"public data {folder} is not here")
    backend = make_backend(make_problem("curve-budget"), "replay", scenario=scenario, num_envs=8)
    out = backend.reset(np.arange(8))
    assert len(backend.shelf.tables) == 8 and (out.instance.target > 0).all()
    for table in backend.shelf.tables:
        assert (np.diff(table.valid, axis=1) <= 0).all() and np.isfinite(table.valid).all()
    # Somebody among the configurations can reach the target.
    end = np.where(out.instance.present, backend.shelf.valid[backend.state.curve, -1], np.inf).min(
        1
    )
    assert (end <= out.instance.target + 1e-12).all()


def test_a_state_can_be_put_back(backend):
    problem = backend.problem
    memory = problem.begin(backend.reset(np.arange(6)))
    for code in (2, 1):
        memory = problem.update(
            memory, backend.spend(problem.decode(np.full((6, 16), code), memory))
        )
    kept, decision = backend.get_state(), problem.decode(np.arange(96).reshape(6, 16) % 3, memory)
    first = backend.spend(decision)
    backend.spend(problem.decode(np.zeros((6, 16), int), problem.update(memory, first)))
    backend.set_state(kept)
    assert backend.spend(decision) == first
    other = make_backend(make_problem("curve-budget"), "replay", num_envs=6)
    other.set_state(kept)
    assert other.spend(decision) == first
    # Some start anew, the others stay where they are.
    mask = np.arange(6) == 2
    again = backend.reset(np.full(6, 77), mask)
    assert (again.used[2] == 0).all() and (again.used[~mask] == first.used[~mask]).all()


def test_the_target_is_reached_when_it_is_first_measured():
    backend = make_backend(make_problem("curve-budget"), "replay", num_envs=12)
    agent = catalogue.make("asha", backend.problem)
    outcomes = rollout(agent, backend, np.arange(12))
    expected = np.full(12, np.inf)
    for row in range(12):
        for out in outcomes:
            if out.scores[row].min() <= out.instance.target[row]:
                expected[row] = max(int(out.used[row].sum()), 1)
                break
    scores = backend.problem.scores(agent.memory)
    assert np.isinf(expected).any() and np.isfinite(expected).any()
    time = scores["time to target (units; inf where not reached)"]
    np.testing.assert_array_equal(time, expected)
    np.testing.assert_array_equal(scores["target reached (share)"], np.isfinite(expected))
    assert next(iter(scores)) == "log final test loss"
    np.testing.assert_array_equal(scores["log final test loss"], np.log(agent.memory.objective))


@pytest.mark.parametrize(
    "given",
    [
        {"configurations": 10**9},
        {"configurations": 1.5},
        {"full": float("nan")},
        {"full": 1e18},
        {"full": 1e-9},
        {"grant": -1},
        {"grant": 1e18},
        {"n_max": 10**9},
        {"n_max": 4},
        {"tasks": ["nothing"]},
        {"tasks": "synthetic-1"},
        {"curves": "nowhere"},
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_told_in_one_sentence(given):
    with pytest.raises(AllocgymError) as told:
        gym.make(ID, **given)
    assert "\n" not in str(told.value) and next(iter(given)) in str(told.value)


@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_every_row_of_a_batch_is_its_scalar_to_the_bit(mode):
    n, settings = 8, {"full": 1, "grant": 5, "configurations": 5}
    many = gym.make_vec(ID, num_envs=n, autoreset_mode=mode, **settings)
    many.reset(seed=0)
    scalars = [gym.make(ID, **settings) for _ in range(n)]
    for i, one in enumerate(scalars):
        one.reset(seed=i)
    rng, live = np.random.default_rng(0), np.ones(n, bool)
    while live.any():
        actions = rng.integers(0, 3, (n, 16))
        seen, reward, done, _, info = many.step(actions)
        for i in np.flatnonzero(live):
            o, r, d, _, _ = scalars[i].step(actions[i])
            source = info["final_obs"] if d and mode == "same_step" else seen
            assert (float(reward[i]), bool(done[i])) == (r, d)
            for key, value in o.items():
                np.testing.assert_array_equal(source[key][i], value)
        live &= ~done
