"""The data-mixing environment, in every scenario, keeps the rules of Gymnasium and our own."""

import pickle
import subprocess
import sys
import textwrap

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import allocgym  # noqa: F401
from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.data_mixing.scenarios import SCENARIOS

# Other problems have scenarios and action spaces of their own, and tests of their own beside them.
IDS = [f"allocgym:{name}" for name in gym.registry if name.startswith("allocgym/DataMixing")]
PAIRS = [(name, scenario) for name in IDS for scenario in SCENARIOS]
each = pytest.mark.parametrize(("name", "scenario"), PAIRS)


def actions(env, batch, periods, seed=0):
    low, high = env.action_space.low.ravel()[0], env.action_space.high.ravel()[0]
    n = env.action_space.shape[-1]
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, (periods, batch, n)).astype(np.float32)


def episode(env, seed, plan):
    """Observations, rewards and ends of an episode, the first observation included."""
    observation, _ = env.reset(seed=seed)
    steps = [(observation, 0.0, False)]
    for action in plan:
        observation, reward, done, truncated, _ = env.step(action)
        assert not truncated
        steps.append((observation, reward, done))
    return steps


def same(one, other, row=None, **close):
    for key in one:
        b = other[key] if row is None else other[key][row]
        if close:
            np.testing.assert_allclose(one[key], b, err_msg=key, **close)
        else:
            np.testing.assert_array_equal(one[key], b, err_msg=key)


def test_something_is_registered():
    assert IDS


@each
def test_gymnasium_has_no_complaint(name, scenario):
    env = gym.make(name, scenario=scenario)
    check_env(env.unwrapped, skip_render_check=True)


@each
def test_an_episode_is_a_function_of_seed_and_actions(name, scenario):
    one, other = gym.make(name, scenario=scenario), gym.make(name, scenario=scenario)
    plan = actions(one, 1, 10)[:, 0]
    for a, b in zip(episode(one, 5, plan), episode(other, 5, plan), strict=True):
        same(a[0], b[0])
        assert a[1:] == b[1:]
    assert a[2]
    with pytest.raises(AllocgymError):
        one.step(plan[0])


@each
def test_simpy_and_twin_learn_bit_for_bit_alike(name, scenario):
    one = gym.make(name, scenario=scenario, backend="simpy")
    other = gym.make(name, scenario=scenario, backend="twin")
    plan = actions(one, 1, 10)[:, 0]
    for a, b in zip(episode(one, 5, plan), episode(other, 5, plan), strict=True):
        same(a[0], b[0])
        assert a[1:] == b[1:]


@pytest.mark.parametrize("name", IDS)
def test_specs_and_environments_can_be_sent_to_workers(name):
    env = gym.make(name, backend="twin")
    spec = pickle.loads(pickle.dumps(env.spec))
    cloudpickle = pytest.importorskip("cloudpickle")
    sent = cloudpickle.loads(cloudpickle.dumps(lambda: gym.make(name, backend="twin")))()
    plan = actions(env, 1, 3)[:, 0]
    runs = [episode(e, 1, plan) for e in (env, gym.make(spec), sent)]
    for other in runs[1:]:
        for a, b in zip(runs[0], other, strict=True):
            same(a[0], b[0])


@pytest.mark.parametrize("name", IDS)
def test_the_picture_is_an_image(name):
    pytest.importorskip("matplotlib")
    env = gym.make(name, render_mode="rgb_array")
    episode(env, 0, actions(env, 1, 2)[:, 0])
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    assert picture.std() > 0
    env.close()
    with pytest.raises(AllocgymError, match="render_mode"):
        type(env.unwrapped)(render_mode="human")


@pytest.mark.parametrize("num_envs", [3, 7])
@each
def test_a_sub_environment_is_its_scalar_twin_bit_for_bit(name, scenario, num_envs):
    many = gym.make_vec(name, num_envs=num_envs, scenario=scenario)
    plan = actions(many, num_envs, 10, seed=num_envs)
    steps = episode_of_many(many, 11, plan)
    for i in range(num_envs):
        env = gym.make(name, scenario=scenario, backend="twin")
        for a, b in zip(episode(env, 11 + i, plan[:, i]), steps, strict=True):
            same(a[0], b[0], i)
            assert a[1] == b[1][i] and a[2] == b[2][i]


def episode_of_many(env, seed, plan):
    observation, _ = env.reset(seed=seed)
    steps = [(observation, np.zeros(env.num_envs), np.zeros(env.num_envs, bool))]
    for action in plan:
        observation, reward, done, _, info = env.step(action)
        steps.append((info.get("final_obs", observation), reward, done))
    return steps


@each
def test_float32_is_close(name, scenario):
    plan = actions(gym.make_vec(name, num_envs=4), 4, 10)
    runs = [
        episode_of_many(gym.make_vec(name, num_envs=4, scenario=scenario, dtype=dtype), 0, plan)
        for dtype in ("float64", "float32")
    ]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_allclose(a[1], b[1], atol=1e-3)
        same(a[0], b[0], atol=2e-2)


@pytest.mark.parametrize("name", IDS)
def test_same_step_goes_on_with_the_next_episode(name):
    one, other = gym.make_vec(name, num_envs=3), gym.make_vec(name, num_envs=2)
    plan = actions(one, 3, 25)
    assert one.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    one.reset(seed=0)
    other.reset(seed=0)
    ends = 0
    for period, action in enumerate(plan):
        a, b = one.step(action), other.step(action[:2])
        same({k: v[:2] for k, v in a[0].items()}, b[0])
        np.testing.assert_array_equal(a[1][:2], b[1])
        if a[2].any():
            ends += 1
            assert a[2].all() and (period + 1) % 10 == 0
            assert (a[4]["final_obs"]["context"][:, 0] == 1).all()
            assert (a[0]["context"][:, 0] == 0).all() and a[4]["_final_obs"].all()
    assert ends == 2


@pytest.mark.parametrize("name", IDS)
def test_next_step_resets_a_step_later_and_ignores_its_action(name):
    one = gym.make_vec(name, num_envs=3, autoreset_mode="next_step")
    other = gym.make_vec(name, num_envs=3)
    assert one.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    one.reset(seed=0)
    other.reset(seed=0)
    for action in actions(one, 3, 10):
        a, b = one.step(action), other.step(action)
        np.testing.assert_array_equal(a[1], b[1])
    assert a[2].all() and (a[0]["context"][:, 0] == 1).all()
    same(a[0], b[4]["final_obs"])
    after = one.step(np.full((3, 8), np.nan, np.float32))
    same(after[0], b[0])
    assert not after[1].any() and not after[2].any()
    action = actions(one, 3, 1, seed=9)[0]
    same(one.step(action)[0], other.step(action)[0])


@pytest.mark.parametrize("name", IDS)
def test_seeds_may_be_given_one_by_one(name):
    env = gym.make_vec(name, num_envs=2)
    one, _ = env.reset(seed=4)
    listed, _ = env.reset(seed=[4, 5])
    same(one, listed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "continual"}, "continual-pretraining"),
        ({"backend": "twinn"}, "Did you mean 'twin'"),
        ({"n_max": 1}, "n_max: 2 to 32"),
        ({"horizonn": 3}, "Did you mean 'horizon'"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, message):
    for name in IDS:
        with pytest.raises(AllocgymError, match=message) as caught:
            gym.make(name, **arguments)
        assert "\n" not in str(caught.value)


def test_the_core_alone_is_enough():
    script = textwrap.dedent("""
        import sys, warnings
        warnings.simplefilter("error")
        BLOCKED = {"torch", "ray", "stable_baselines3", "pandas", "matplotlib", "rich", "typer"}

        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in BLOCKED:
                    raise ImportError(f"{name} is blocked")

        sys.meta_path.insert(0, Block())
        import gymnasium
        import allocgym
        for backend in ("simpy", "twin"):
            env = gymnasium.make("allocgym:allocgym/DataMixing-v0", backend=backend)
            env.reset(seed=0)
            done = False
            while not done:
                done = env.step(env.action_space.sample())[2]
        many = gymnasium.make_vec("allocgym:allocgym/DataMixing-v0", num_envs=4)
        many.reset(seed=0)
        many.step(many.action_space.sample())
        assert not BLOCKED & {m.split(".")[0] for m in sys.modules}
        print("done")
    """)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "done\n", done.stderr
