"""Problems of one choice a step: illegal actions, random play, autoreset, states, hostile arguments."""

import copy
import json
import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from allocgym.envs.activation_plan.env import ActivationPlanVectorEnv
from allocgym.envs.activation_plan.profile import RECOMPUTE
from allocgym.envs.core.builder import build
from allocgym.envs.core.choice import Choice
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.memory_mapping.env import MemoryMappingVectorEnv
from allocgym.envs.memory_mapping.plan import DROP
from allocgym.envs.packing.env import PackingVectorEnv
from allocgym.envs.strategy_selection.env import StrategySelectionVectorEnv

CASES = [
    ("MemoryMapping", {}),
    ("MemoryMapping", {"order": True}),
    ("ActivationPlan", {}),
    ("Packing", {"n_max": 16}),
    ("StrategySelection", {}),
]
VECTOR = {
    "MemoryMapping": MemoryMappingVectorEnv,
    "ActivationPlan": ActivationPlanVectorEnv,
    "Packing": PackingVectorEnv,
    "StrategySelection": StrategySelectionVectorEnv,
}
PROBLEMS = ("memory-mapping", "activation-plan", "packing", "strategy-selection")


def made(name, **arguments):
    return gym.make(f"allocgym:allocgym/{name}-v0", **arguments).unwrapped


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_random_play_reaches_the_end_with_every_default(name, arguments):
    env = made(name, **arguments)
    check_env(env, skip_render_check=True)
    env.action_space.seed(1)
    env.reset(seed=1)
    over, steps, illegal = False, 0, 0
    while not over:
        action = env.action_space.sample()
        illegal += not env.action_masks()[action]
        observation, reward, over, _, info = env.step(action)
        assert env.observation_space.contains(observation) and np.isfinite(reward)
        assert info["decision"].pick[0] in np.arange(env.action_space.n)
        steps += 1
    assert illegal and steps == env.backend.ledger.spent[0] and env.backend.ledger.left[0] == 0


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_an_illegal_action_becomes_what_the_page_says_or_raises(name, arguments):
    env = made(name, **arguments)
    env.action_space.seed(0)
    env.reset(seed=0)
    while env.action_masks().all():
        env.step(0)
    legal = env.action_masks()
    wrong = int(np.flatnonzero(~legal)[-1])
    meant = {"ActivationPlan": RECOMPUTE}.get(name, int(legal.argmax()))
    if name == "MemoryMapping" and not arguments:
        assert meant == DROP
    assert env.problem.decode(np.array([wrong]), env.memory).pick[0] == meant
    strict = type(env.problem)(**arguments, strict=True)
    with pytest.raises(AllocgymError, match=r"^action: .*ask action_masks"):
        strict.decode(np.array([wrong]), env.memory)
    right = int(np.flatnonzero(legal)[-1])
    assert strict.decode(np.array([right]), env.memory).pick[0] == right


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_next_step_autoreset_survives_ends_at_different_times(name, arguments):
    env = VECTOR[name](4, autoreset_mode="next_step", **arguments)
    twins = [made(name, backend="twin", **arguments) for _ in range(4)]
    observation, _ = env.reset(seed=3)
    for i, twin in enumerate(twins):
        twin.reset(seed=3 + i)
    over, ended, rng = np.zeros(4, bool), np.zeros(4, int), np.random.default_rng(0)
    for step in range(env.backend.spec.horizon + 3):
        actions = rng.integers(env.single_action_space.n, size=4)
        observation, reward, done, _, _ = env.step(actions)
        assert (reward[over] == 0).all() and not done[over].any()
        for i, twin in enumerate(twins):
            if not ended[i]:
                one, paid, last, _, _ = twin.step(actions[i])
                assert paid == reward[i] and last == done[i]
                for key, value in one.items():
                    np.testing.assert_array_equal(value, observation[key][i])
        over = done
        ended = np.where((ended == 0) & done, step + 1, ended)
    assert ended.all()
    if name == "MemoryMapping":
        assert len(set(ended)) > 1, "programs of different lengths"


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_states_and_copies_go_on_alike(name, arguments):
    env = made(name, **arguments)
    env.reset(seed=2)
    for _ in range(3):
        observation = env.step(0)[0]
    for value in observation.values():
        value[...] = 0
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    state = env.backend.get_state()
    decision = env.problem.decode(np.array([0]), env.memory)
    first = env.backend.spend(decision).to_json()
    env.backend.set_state(state)
    assert env.backend.spend(decision).to_json() == first
    env.backend.set_state(state)
    told = [e.step(0) for e in (env, *copies)]
    for other in told[1:]:
        assert other[1] == told[0][1]
        for key, value in told[0][0].items():
            np.testing.assert_array_equal(value, other[0][key])


def test_rows_that_are_over_are_decided_at_no_cost():
    backend = build("memory-mapping", "twin", "train", 4)
    problem = backend.problem
    memory = problem.begin(backend.reset(np.arange(4)))
    while not memory.done.any():
        memory = problem.begin(backend.spend(problem.decode(np.zeros(4, int), memory)))
    assert not memory.done.all()
    decision = problem.decode(np.ones(4, int), memory)
    assert ((decision.pick == -1) == memory.done).all()
    assert (problem.cost(decision) == ~memory.done).all()


def test_decisions_made_elsewhere_are_checked():
    env = made("Packing", n_max=8)
    env.reset(seed=0)
    for pick, message in (
        (np.array([9]), "buffer 9"),
        (np.array([-1]), "buffer -1"),
        (np.array([0.5]), "integers expected"),
        (np.array([0, 1]), "1 integers expected"),
    ):
        with pytest.raises(AllocgymError, match=message):
            env.problem.check(Choice(pick), env.memory)


HOSTILE = {
    "memory-mapping": {
        "fractions": [[float("nan")], [1e18], [-1], "x", [], [0.5] * 100, 3],
        "compute": [float("nan"), 1e30, -1, "x", True],
        "programs": [["x"], [1], "gpt", []],
        "trace": [5, "nowhere.json", __file__],
        "n_max": [0, 10**9, 2.5, "x", True],
        "tensors": [0, 10**12],
        "order": ["x"],
        "strict": [1],
        "engine": ["twin"],
    },
    "activation-plan": {
        "budget": [float("nan"), -1, 2, 1e18, "x"],
        "steps": [["x"], [1], []],
        "links": [[0], [float("inf")], []],
        "overlap": [[1], []],
        "n_max": [0, 1, 10**9],
    },
    "packing": {
        "buffers": [0, 65, 10**9, 2.5, float("nan")],
        "file": [5, "x.csv"],
        "capacity": [-1, 10**18, 5],
        "source": ["x", "file"],
        "n_max": [0, 10**9],
    },
    "strategy-selection": {
        "nodes": [0, 10**9, 2.5, float("nan")],
        "level": [1],
        "instance": ["B", 5],
        "n_max": [0, 2, 10**9],
    },
}


@pytest.mark.parametrize("problem", PROBLEMS)
def test_hostile_arguments_are_told_in_one_sentence(problem):
    for name, values in HOSTILE[problem].items():
        for value in values:
            with pytest.raises(AllocgymError) as told:
                build(problem, "twin", None, 2, **{name: value})
            assert "\n" not in str(told.value)


def test_arguments_the_pages_name_can_be_given():
    assert made("MemoryMapping", order=True, n_max=300).problem.n_max == 300
    assert made("MemoryMapping", n_max=4, fractions=[0.4], compute=1e14).problem.n_max == 4
    assert made("MemoryMapping", order=True).action_space.n == 256
    plan = made("ActivationPlan", n_max=40, budget=0.25, links=[1e11], overlap=[False])
    assert plan.problem.n_max == 40 and not plan.backend._all.overlap.any()
    assert made("Packing", n_max=20, buffers=5).backend.spec.horizon == 5
    assert made("StrategySelection", nodes=7, n_max=12).backend.spec.horizon == 7
    with pytest.raises(AllocgymError, match="'illegal'"):
        made("Packing", illegal="first")


def test_a_recorded_program_with_many_tensors_gets_its_rows(tmp_path):
    ops = [
        {"name": f"o{i}", "flops": 1e6, "ins": [f"x{i}"], "out": f"x{i + 1}"} for i in range(300)
    ]
    sizes = {f"x{i}": {"size": 1000} for i in range(301)}
    file = tmp_path / "long.json"
    file.write_text(json.dumps({"ops": ops, "tensors": sizes}))
    assert build("memory-mapping", "twin", str(file), order=True).problem.n_max == 301
    assert build("memory-mapping", "twin", str(file)).problem.n_max == 8
    file.write_text(file.read_text().replace("1000000.0", "NaN", 1))
    with pytest.raises(AllocgymError, match="FLOPs expected, given nan"):
        build("memory-mapping", "simpy", "trace", trace=str(file))
