"""SimPy and twin agree; environments keep Gymnasium's rules; controls are level."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from allocgym.agents.activation_plan import rule as rules
from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.memory_mapping import order as orders
from allocgym.envs.activation_plan.problem import ActivationPlan
from allocgym.envs.activation_plan.profile import Profile, profile_from_json, timeline
from allocgym.envs.core import builder
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping.game import Game
from allocgym.envs.memory_mapping.plan import price
from allocgym.envs.memory_mapping.problem import MemoryMapping
from allocgym.simulators.activation_plan.machine import simulate
from allocgym.simulators.activation_plan.profile import profiles as training_steps
from allocgym.simulators.activation_plan.scenario import SCENARIOS as STEPS
from allocgym.simulators.memory_mapping import machine
from allocgym.simulators.memory_mapping.program import bundled, device, instances
from allocgym.simulators.memory_mapping.scenario import SCENARIOS, TEST, TRAIN

MAPPING = "allocgym:allocgym/MemoryMapping-v0"
PLANNING = "allocgym:allocgym/ActivationPlan-v0"


def play(env, seed, rng):
    env.reset(seed=seed)
    rewards, done = [], False
    while not done:
        legal = np.flatnonzero(env.unwrapped.action_masks())
        _, reward, done, _, _ = env.step(rng.choice(legal))
        rewards.append(reward)
    return rewards


def test_train_and_test_programs_are_apart():
    assert not set(TRAIN) & set(TEST)
    family, known = ({name.split("-")[0] for name in some} for some in (TEST, TRAIN))
    assert {"unet", "vit"} <= family - known
    largest = max(len(bundled(name).ops) for name in TRAIN)
    assert any(len(bundled(name).ops) > largest for name in TEST)


def test_simpy_plays_a_plan_in_its_exact_price():
    for p, d in instances(SCENARIOS["train"])[:6]:
        game = Game(p, d)
        game.order(orders.xla(p, d))
        assert machine.run_plan(p, d, game.plan) == pytest.approx(price(p, d, game.plan), rel=1e-9)


@pytest.mark.parametrize("order", [False, True])
def test_simpy_and_twin_give_the_same_rewards(order):
    runs = [
        play(gym.make(MAPPING, backend=b, order=order), 3, np.random.default_rng(0))
        for b in ("simpy", "twin")
    ]
    np.testing.assert_allclose(runs[0], runs[1], atol=1e-9)
    assert abs(sum(runs[1])) > 1e-3


@pytest.mark.parametrize("order", [False, True])
def test_a_sub_environment_is_its_scalar_twin(order):
    many = gym.make_vec(MAPPING, num_envs=3, order=order)
    first, _ = many.reset(seed=5)
    alone = [gym.make(MAPPING, backend="twin", order=order) for _ in range(3)]
    for i, env in enumerate(alone):
        obs, _ = env.reset(seed=5 + i)
        for key in obs:
            np.testing.assert_array_equal(obs[key], first[key][i])
    for _ in range(12):
        picks = many.unwrapped.action_masks().argmax(1)
        obs, reward, _, _, _ = many.step(picks)
        for i, env in enumerate(alone):
            one, r, _, _, _ = env.step(picks[i])
            assert r == reward[i]
            for key in one:
                np.testing.assert_array_equal(one[key], obs[key][i])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        (MAPPING, {}),
        (MAPPING, {"order": True}),
        (PLANNING, {}),
        (PLANNING, {"scenario": "recorded"}),
    ],
)
def test_gymnasium_has_no_complaint(name, arguments):
    check_env(gym.make(name, **arguments).unwrapped, skip_render_check=True)


def test_illegal_actions_are_refused_and_named():
    env = gym.make(MAPPING, backend="twin", strict=True)
    env.reset(seed=0)
    illegal = int(np.argmin(env.unwrapped.action_masks()))
    assert not env.unwrapped.action_masks()[illegal]
    with pytest.raises(AllocgymError, match="action_masks"):
        env.step(illegal)


def test_wrong_arguments_are_told_in_a_sentence():
    for arguments, message in (
        ({"scenario": "tests"}, "Did you mean 'test'"),
        ({"fraction": 1}, "Did you mean 'fractions'"),
        ({"fractions": [0]}, "fractions: a number from 0.001 to 1000"),
        ({"order": True, "n_max": 4}, "raise n_max"),
        ({"scenario": "trace"}, "trace: the file"),
        ({"strict": "x"}, "strict: bool"),
    ):
        with pytest.raises(AllocgymError, match=message):
            gym.make(MAPPING, **arguments)
    with pytest.raises(AllocgymError, match="budget: a number from 0 to 1"):
        gym.make(PLANNING, budget=2)


@pytest.mark.parametrize("scenario", ["compute-bound", "ample"])
def test_the_controls_are_level(scenario):
    for p, d in instances(SCENARIOS[scenario]):
        got = [Game(p, d).order(rule(p, d)) for rule in orders.GREEDY.values()]
        assert np.ptp(got) < 1e-9, p.name
        assert (max(got) < 1e-9) == (scenario == "compute-bound")


def test_a_state_can_be_set_back():
    problem = MemoryMapping()
    backend = builder.make_backend(problem, "twin", num_envs=4)
    agent = catalogue.make("myopic", problem)
    outcome = backend.reset(np.arange(4))
    agent.begin(backend.spec)
    agent.tell(outcome)
    state = backend.get_state()
    one = backend.spend(agent.ask())
    backend.set_state(state)
    assert backend.spend(agent.ask()).to_json() == one.to_json()


def test_capacities_are_fractions_of_the_peak():
    p = bundled(TRAIN[0])
    assert device(p, 0.5).capacity == p.peak // 2
    with pytest.raises(AllocgymError, match="fraction"):
        device(p, 0)


@st.composite
def profiles(draw):
    n = draw(st.integers(1, 7))
    some = st.floats(0, 10, allow_subnormal=False)
    size = np.array([[draw(st.floats(1, 10)) for _ in range(n)]])

    def table(scale=1.0):
        return np.array([[draw(some) * scale for _ in range(n)]])

    share = np.array([[draw(st.floats(0, 1)) for _ in range(n)]])
    work = np.array([[[draw(some) for _ in range(3)] for _ in range(n)]])
    return Profile(
        size,
        size * share,
        size * (1 - share),
        work,
        table(),
        table(),
        table(),
        np.array([draw(some)]),
        np.array([draw(some)]),
        np.array([draw(st.floats(0.1, 10))]),
        np.array([draw(st.booleans())]),
        np.array([100.0]),
        np.ones((1, n), bool),
    )


@settings(max_examples=40)
@given(profiles(), st.randoms(use_true_random=False))
def test_activation_timeline_is_simpys(profile, random):
    n = profile.size.shape[1]
    action = np.array([[random.randrange(3) for _ in range(n)]])
    seconds, peak = timeline(profile, action)
    got = simulate(profile, action)
    assert got[0] == pytest.approx(seconds[0], rel=1e-9, abs=1e-9)
    assert got[1] == pytest.approx(peak[0], rel=1e-9)


@pytest.mark.parametrize("backend", ["simpy", "twin"])
@pytest.mark.parametrize("scenario", ["gpt-gpu-test", "recorded"])
def test_masked_plans_stay_within_the_budget(backend, scenario):
    problem = ActivationPlan()
    made = builder.make_backend(problem, backend, scenario=scenario, num_envs=4)
    for name in ("cheapest-recompute", "offload-all", "keep-all", "plan-search"):
        last = rollout(catalogue.make(name, problem), made, np.arange(4))[-1]
        assert last.done.all() or name
        assert (last.peak <= last.profile.budget).all()
        assert made.ledger.left.sum() == 0


def test_the_search_is_never_worse_than_the_rules_that_fit():
    for share in (0.2, 0.6):
        for data in training_steps(STEPS["gpt-gpu-test"]):
            p = profile_from_json(data, 32, share)
            ours = timeline(p, rules.plan_search(p, 1500)[None])
            assert ours[1][0] <= p.budget[0]
            rule = timeline(p, rules.cheapest_recompute(p)[None])
            assert ours[0][0] <= rule[0][0] * (1 + 1e-12)
