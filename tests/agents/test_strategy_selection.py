"""Strategy selection: bounds and elimination are exact on small problems, the walk keeps the rules."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.training import train
from allocgym.agents.strategy_selection import forest as forests
from allocgym.agents.strategy_selection import search as strategies
from allocgym.agents.strategy_selection.elimination import (
    Elimination,
    Potentials,
    elimination_order,
)
from allocgym.agents.strategy_selection.heuristics import Myopic, Search
from allocgym.envs.core import builder
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.strategy_selection.instance import FORBIDDEN, evaluate, from_json
from allocgym.envs.strategy_selection.problem import StrategySelection
from allocgym.envs.strategy_selection.walk import Walk
from allocgym.simulators.core import public_data
from allocgym.simulators.strategy_selection import network

ID = "allocgym:allocgym/StrategySelection-v0"


@st.composite
def problems(draw):
    n, k = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    some = st.integers(0, 30)
    pairs = [(i, j) for i in range(n) for j in range(i) if draw(st.booleans())]
    cost = st.one_of(some, some, some, st.just(10**18))
    return {
        "name": "small",
        "usage_limit": draw(st.integers(6, 20)),
        "nodes": {
            "intervals": [[i, i + draw(st.integers(0, 3))] for i in range(n)],
            "costs": [[draw(some) for _ in range(k)] for _ in range(n)],
            "usages": [[draw(st.integers(1, 8)) for _ in range(k)] for _ in range(n)],
        },
        "edges": {"nodes": pairs, "costs": [[draw(cost) for _ in range(k * k)] for _ in pairs]},
    }


def everything(problem):
    sizes = [range(len(c)) for c in problem.costs]
    return np.stack(np.meshgrid(*sizes, indexing="ij"), -1).reshape(-1, len(sizes))


@settings(max_examples=60, deadline=None)
@given(problems())
def test_elimination_and_bounds_are_right_on_any_small_problem(data):
    problem = from_json(data)
    terms, ids = strategies.potentials(problem)
    choices = everything(problem)
    costs = np.array([evaluate(problem, c)[0] for c in choices])
    single = np.array(
        [
            all(
                u[k] <= problem.limit or s.stop == s.start
                for u, k, s in zip(problem.usages, c, problem.slots, strict=True)
            )
            for c in choices
        ]
    )
    allowed = costs[(costs < FORBIDDEN) & single]
    if not len(allowed):
        return
    least = allowed.min()
    before = terms.bound()
    assert before <= terms.tighten(5) + 1e-9 <= least + 1e-6
    small = terms.copy()
    small.prune(least + 1e-6)
    small, keep = small.shrink()
    order = elimination_order(small, np.random.default_rng(0))
    got = Elimination(small, least + 1e-3, 10**6).run(order)
    assert got is not None
    choice = np.array([i[k[v]] for i, k, v in zip(ids, keep, got, strict=True)])
    assert evaluate(problem, choice)[0] == pytest.approx(least)


@settings(max_examples=25, deadline=None)
@given(problems())
def test_the_search_is_feasible_and_its_bound_holds(data):
    problem = from_json(data)
    scored = [evaluate(problem, c) for c in everything(problem)]
    feasible = [v for v, peak in scored if peak <= problem.limit and v < FORBIDDEN]
    got = strategies.search(problem, 30.0, rounds=12)
    if got.choice is None:
        return
    cost, peak = evaluate(problem, got.choice)
    assert peak <= problem.limit and cost == got.cost
    assert got.bound <= min(feasible) + 1e-6 and got.cost >= min(feasible)


def test_a_table_cut_short_never_loses_the_incumbent():
    rng = np.random.default_rng(3)
    n, k = 9, 4
    pair = {(i, j): rng.random((k, k)) for i in range(n) for j in range(i + 1, n)}
    p = Potentials([rng.random(k) for _ in range(n)], pair)
    mine = rng.integers(k, size=n)

    def total(c):
        return sum(u[v] for u, v in zip(p.unary, c, strict=True)) + sum(
            t[c[i], c[j]] for (i, j), t in pair.items()
        )

    order = elimination_order(p, rng)
    got = Elimination(p, 1e9, 3, mine).run(order)
    assert total(got) <= total(mine) + 1e-12
    assert Elimination(p, p.bound() - 1.0, 3).run(order) is None


@pytest.mark.parametrize("solver", ["search", "forests"])
def test_a_memory_limit_is_kept_and_costs(solver):
    problem = network.generated(8, 24)
    free = strategies.search(problem, 30.0, rounds=1)
    if solver == "search":
        got = strategies.search(problem, 30.0, rounds=40)
        choice, cost = got.choice, got.cost
        again = strategies.search(problem, 30.0, rounds=40)
        assert again.cost == cost
    else:
        choice, cost, _ = forests.descend(problem, 0.8)
    value, peak = evaluate(problem, choice)
    assert value == pytest.approx(cost) and peak <= problem.limit and cost >= free.bound - 1e-6


@pytest.mark.parametrize("scenario", ["train", "test", "level"])
def test_gymnasium_has_no_complaint(scenario):
    check_env(gym.make(ID, scenario=scenario).unwrapped, skip_render_check=True)


def test_a_sub_environment_is_its_scalar_twin_and_pays_the_objective():
    many = gym.make_vec(ID, num_envs=3)
    first, _ = many.reset(seed=5)
    alone = [gym.make(ID) for _ in range(3)]
    for i, env in enumerate(alone):
        obs, _ = env.reset(seed=5 + i)
        for key in obs:
            np.testing.assert_array_equal(obs[key], first[key][i])
    paid, done = np.zeros(3), np.zeros(3, bool)
    while not done.any():
        picks = many.unwrapped.action_masks().argmax(1)
        obs, reward, done, _, info = many.step(picks)
        obs = info.get("final_obs", obs)
        paid += reward
        for i, env in enumerate(alone):
            one, r, over, _, _ = env.step(picks[i])
            assert r == reward[i] and over == done[i]
            for key in one:
                np.testing.assert_array_equal(one[key], obs[key][i])
    for i, env in enumerate(alone):
        w = env.unwrapped.backend.state.walk[0]
        cost, peak = evaluate(w.problem, w.choice)
        assert w.broken == (peak > w.problem.limit or cost >= FORBIDDEN)
        assert paid[i] == pytest.approx(-np.log10(1 + cost) - 10 * w.broken)


@settings(max_examples=40, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_the_walk_keeps_the_evaluators_books(data, random):
    walk = Walk(from_json(data))
    while not walk.done:
        _, legal = walk.table()
        options = np.flatnonzero(legal) if legal.any() else np.arange(len(legal))
        walk.play(int(random.choice(list(options))))
    walk.verify()


@pytest.mark.parametrize("name", ["least-memory", "myopic", "look-ahead", "random", "search"])
def test_agents_play_whole_batches(name):
    problem = StrategySelection()
    backend = builder.make_backend(problem, "twin", num_envs=3)
    agent = Search(problem, 0.3) if name == "search" else catalogue.make(name, problem)
    last = rollout(agent, backend, np.arange(3))[-1]
    assert last.done.all() and backend.ledger.left.sum() == 0
    if name == "search":
        other = rollout(catalogue.make("random", problem), backend, np.arange(3))[-1]
        assert not last.broken.any() and (last.cost <= other.cost).all()


def test_the_control_is_level():
    problem = StrategySelection()
    backend = builder.make_backend(problem, "twin", scenario="level", num_envs=4)
    got = [
        rollout(catalogue.make(name, problem), backend, np.arange(4))[-1].cost
        for name in ("least-memory", "myopic", "random")
    ]
    assert np.ptp(got) == 0


def test_a_state_can_be_set_back():
    problem = StrategySelection()
    backend = builder.make_backend(problem, "twin", num_envs=2)
    agent = Myopic(problem)
    agent.begin(backend.spec)
    agent.tell(backend.reset(np.arange(2)))
    state = backend.get_state()
    decision = agent.ask()
    one = backend.spend(decision)
    backend.set_state(state)
    assert backend.spend(decision).to_json() == one.to_json()


def test_training_is_a_function_of_the_seed_and_survives_a_file(tmp_path):
    pytest.importorskip("cma")
    pytest.importorskip("torch")
    problem, files = StrategySelection(), (tmp_path / "a.zip", tmp_path / "b.zip")
    for file in files:
        train("strategy-selection", file, iterations=2, arguments={"nodes": 6})
    one, other = (catalogue.make(file, problem) for file in files)
    np.testing.assert_array_equal(one.weights, other.weights)
    assert one.name == "a" and (one.weights != one.start).any()


def test_the_contests_instances_are_walked_through():
    if not public_data.available("memory/iopddl"):
        pytest.skip("public data is not here (set ALLOCGYM_DATA)")
    env = gym.make(ID, scenario="iopddl", instance="B")
    obs, _ = env.reset(seed=0)
    for _ in range(5):
        obs, *_ = env.step(int(obs["action_mask"].argmax()))
    assert env.observation_space.contains(obs)


def test_wrong_arguments_are_told_in_a_sentence():
    for arguments, message in (
        ({"scenario": "trian"}, "Did you mean 'train'"),
        ({"n_max": 2}, "raise n_max"),
        ({"instance": "B"}, "scenario 'iopddl'"),
        ({"strict": "x"}, "strict: bool"),
    ):
        with pytest.raises(AllocgymError, match=message):
            gym.make(ID, **arguments)
    with pytest.raises(AllocgymError, match="not every node"):
        Walk(network.generated(0)).verify()
