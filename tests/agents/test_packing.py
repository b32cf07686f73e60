"""Packing: rules, environment, packers; every packing is checked by a validator of its own."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st

from allocgym.agents.core import agent_file, catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.packing import order as orders
from allocgym.agents.packing import priority, solver
from allocgym.agents.packing.heuristics import SolverPacker
from allocgym.envs.core import builder
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.packing.buffer import Buffers, from_csv, to_csv, validate
from allocgym.envs.packing.problem import Packing
from allocgym.simulators.core import public_data
from allocgym.simulators.packing import instance as instances

ID = "allocgym:allocgym/Packing-v0"


@st.composite
def buffers(draw):
    n = draw(st.integers(1, 12))
    low = np.array([draw(st.integers(0, 9)) for _ in range(n)])
    life = np.array([draw(st.integers(1, 6)) for _ in range(n)])
    size = np.array([draw(st.integers(1, 9)) for _ in range(n)])
    return Buffers("random", low, low + life, size, 20)


@given(buffers(), st.randoms(use_true_random=False))
def test_any_order_is_a_packing_and_a_packing_is_an_order(b, random):
    order = list(range(len(b.size)))
    random.shuffle(order)
    at = orders.offsets(b, np.array(order))
    height = validate(b, at)
    assert b.peak <= height <= b.size.sum()
    again = orders.offsets(b, np.argsort(at, kind="stable"))
    assert (again <= at).all()
    assert from_csv(to_csv(b), "random", 20).size.tolist() == b.size.tolist()


@given(buffers(), st.integers(0, 5))
def test_a_climb_ends_no_higher_than_it_starts(b, seed):
    start = [f(b) for f in orders.ORDERS.values()]
    order, tried = orders.climb(b, start, 1e9, seed, moves=100)
    assert sorted(order.tolist()) == list(range(len(b.size))) and tried <= 100
    best = min(validate(b, orders.offsets(b, o)) for o in start)
    assert validate(b, orders.offsets(b, order)) <= best
    again, _ = orders.climb(b, start, 1e9, seed, moves=100)
    assert again.tolist() == order.tolist()


def test_the_validator_catches():
    b = Buffers("two", np.array([0, 1]), np.array([2, 3]), np.array([4, 4]), 8)
    assert validate(b, np.array([0, 4])) == 8
    for wrong, message in (([0, 3], "share bytes"), ([-1, 4], "offset >= 0"), ([0], "offset >= 0")):
        with pytest.raises(AllocgymError, match=message):
            validate(b, np.array(wrong))


@pytest.mark.parametrize("scenario", ["tight", "slack", "stacked"])
def test_generated_instances_are_known_to_fit(scenario):
    for seed in range(5):
        b = instances.generated(scenario, seed, 30)
        assert validate(b, b.known) <= b.capacity
        assert validate(b, orders.offsets(b, np.argsort(b.known))) <= b.capacity
        if scenario != "slack":
            assert b.peak == b.capacity
    with pytest.raises(AllocgymError, match="buffers: at most"):
        instances.cut(0, 100, 4096, 4)


def test_the_control_is_level():
    b = instances.generated("stacked", 1, 20)
    heights = {
        int((orders.offsets(b, np.random.default_rng(i).permutation(20)) + b.size).max())
        for i in range(5)
    }
    assert heights == {b.capacity}


@pytest.mark.parametrize("scenario", ["tight", "slack", "stacked"])
def test_gymnasium_has_no_complaint(scenario):
    check_env(gym.make(ID, scenario=scenario).unwrapped, skip_render_check=True)


def test_a_sub_environment_is_its_scalar_twin_and_pays_minus_the_height():
    many = gym.make_vec(ID, num_envs=3, n_max=16, scenario="slack")
    first, _ = many.reset(seed=5)
    alone = [gym.make(ID, n_max=16, scenario="slack") for _ in range(3)]
    for i, env in enumerate(alone):
        obs, _ = env.reset(seed=5 + i)
        for key in obs:
            np.testing.assert_array_equal(obs[key], first[key][i])
    paid = np.zeros(3)
    for _ in range(10):
        picks = many.unwrapped.action_masks().argmax(1)
        obs, reward, done, _, info = many.step(picks)
        obs = info.get("final_obs", obs)
        paid += reward
        for i, env in enumerate(alone):
            one, r, over, _, _ = env.step(picks[i])
            assert r == reward[i] and over == done[i]
            for key in one:
                np.testing.assert_array_equal(one[key], obs[key][i])
    assert done.all()
    for i, env in enumerate(alone):
        state = env.unwrapped.outcome.state
        b = env.unwrapped.backend.state.instance[0]
        assert validate(b, state.offset[0, :10]) == state.height[0]
        assert paid[i] == pytest.approx(-state.height[0] / b.capacity)


@pytest.mark.parametrize("name", ["random", "size", "area", "climb"])
def test_agents_play_whole_batches(name):
    problem = Packing(n_max=16)
    backend = builder.make_backend(problem, "twin", num_envs=3)
    agent = catalogue.make(name, problem)
    agent.seconds = 0.02
    last = rollout(agent, backend, np.arange(3))[-1]
    assert last.done.all() and backend.ledger.left.sum() == 0
    assert (last.state.height >= last.state.peak).all()


def test_a_state_can_be_set_back():
    problem = Packing(n_max=16)
    backend = builder.make_backend(problem, "twin", num_envs=2)
    agent = SolverPacker(problem, "size")
    agent.begin(backend.spec)
    agent.tell(backend.reset(np.arange(2)))
    decision = agent.ask()
    backend.spend(decision)
    agent.tell(backend.outcome)
    state = backend.get_state()
    decision = agent.ask()
    one = backend.spend(decision)
    backend.set_state(state)
    assert backend.spend(decision).to_json() == one.to_json()


def test_cp_sat_finds_what_is_known_to_be_there():
    pytest.importorskip("ortools")
    b = instances.generated("tight", 3, 16)
    got = solver.solve("cp-sat", b, 10)
    assert got.offsets is not None and validate(b, got.offsets) <= b.capacity


def test_training_is_a_function_of_the_seed_and_survives_a_file(tmp_path):
    pytest.importorskip("cma")
    pytest.importorskip("torch")

    def draw(seed):
        return instances.generated("slack", seed, 12)

    one, facts = priority.train(draw, 2, 3, 0, batch=3)
    other, _ = priority.train(draw, 2, 3, 0, batch=3)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert facts["members"] == 2
    file, problem = tmp_path / "a.zip", Packing()
    agent_file.save(file, problem, *one.to_file(), facts)
    np.testing.assert_array_equal(priority.Priorities.load(file, problem).weights, one.weights)
    made = catalogue.make(file, problem)
    assert made.name == "a" and made.solver == "learned"
    np.testing.assert_array_equal(made.learned.weights, one.weights)


def test_public_inputs_are_read():
    if not public_data.available("memory/minimalloc"):
        pytest.skip("public data is not here (set ALLOCGYM_DATA)")
    b = instances.public("A")
    assert len(b.size) == 154 and b.peak == b.capacity
    env = gym.make(ID, scenario="minimalloc", n_max=512)
    env.reset(seed=0)


def test_wrong_arguments_are_told_in_a_sentence(tmp_path):
    for arguments, message in (
        ({"scenario": "tigt"}, "Did you mean 'tight'"),
        ({"buffers": 99}, "buffers: 1 to n_max=64"),
        ({"scenario": "file"}, "file: a CSV"),
        ({"strict": "x"}, "strict: bool"),
        ({"scenario": "file", "file": str(tmp_path / "no.csv"), "capacity": 1}, "cannot be read"),
    ):
        with pytest.raises(AllocgymError, match=message):
            gym.make(ID, **arguments)
    with pytest.raises(AllocgymError, match="alignment"):
        from_csv("id,lower,upper,size,alignment\n0,0,1,4,16\n", "x", 4)
    with pytest.raises(AllocgymError, match="whole numbers"):
        from_csv("id,lower,upper\n0,0,1\n", "x", 4)
    env = gym.make(ID, strict=True)
    env.reset(seed=0)
    env.step(0)
    with pytest.raises(AllocgymError, match="placed already"):
        env.step(0)


def test_the_picture_shows_the_return_where_no_shares_are_decided():
    pytest.importorskip("matplotlib")
    env = gym.make(ID, n_max=8, render_mode="rgb_array")
    env.reset(seed=0)
    for pick in range(4):
        env.step(pick)
    picture = env.render()
    left = picture[:, : picture.shape[1] // 2].astype(int)
    assert (left[..., 2] > left[..., 0] + 60).any(), "a blue line that begins on the left"
