"""The environment on the simulator: Gymnasium's rules, budgets, equality across batches and engines."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import allocgym  # noqa: F401
from allocgym.envs.core.builder import build, make_backend, make_problem
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError, OutOfBudgetError
from allocgym.envs.rollout_budget import curves
from allocgym.simulators.rollout_budget.scenario import SCENARIOS

ID = "allocgym:allocgym/RolloutBudget-v0"
SMALL = {"horizon": 6}
MODES = {"bins": 10, "per_prompt": 16, "index": 16}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_gymnasium_has_no_complaint(scenario, mode):
    env = gym.make(ID, scenario=scenario, mode=mode, n_max=MODES[mode], **SMALL)
    check_env(env.unwrapped, skip_render_check=True)


def episode(env, seed, plan):
    observation, _ = env.reset(seed=seed)
    steps = [(observation, 0.0, False)]
    for action in plan:
        observation, reward, done, truncated, _ = env.step(action)
        assert not truncated
        steps.append((observation, reward, done))
    return steps


def plans(batch, n, periods=6):
    rng = np.random.default_rng(batch)
    return rng.uniform(-1, 1, (periods, batch, n)).astype(np.float32)


@pytest.mark.parametrize("rounds", [1, 2])
@pytest.mark.parametrize("mode", ["bins", "per_prompt"])
@pytest.mark.parametrize("scenario", ["hetero-cost", "tiny", "homogeneous"])
def test_simpy_twin_and_batch_are_one(scenario, mode, rounds):
    n = MODES[mode]
    arguments = {"scenario": scenario, "mode": mode, "n_max": n, "horizon": 3, "rounds": rounds}
    plan = plans(3, n, 3 * rounds)
    many = gym.make_vec(ID, num_envs=3, **arguments)
    observation, _ = many.reset(seed=4)
    steps = [(observation, np.zeros(3), np.zeros(3, bool))]
    seconds = []
    for action in plan:
        observation, reward, done, _, info = many.step(action)
        steps.append((info.get("final_obs", observation), reward, done))
    for i in range(3):
        for backend in ("simpy", "twin"):
            env = gym.make(ID, backend=backend, **arguments)
            for a, b in zip(episode(env, 4 + i, plan[:, i]), steps, strict=True):
                for key in a[0]:
                    np.testing.assert_array_equal(a[0][key], b[0][key][i], err_msg=key)
                assert a[1] == b[1][i] and a[2] == b[2][i]
            seconds.append(float(env.unwrapped.outcome.all_seconds[0]))
    np.testing.assert_allclose(seconds[::2], seconds[1::2], rtol=1e-9)


def test_float32_is_close():
    runs = []
    for dtype in ("float64", "float32"):
        env = gym.make_vec(ID, num_envs=4, dtype=dtype, **SMALL)
        env.reset(seed=0)
        runs.append(np.array([env.step(a)[1] for a in plans(4, 10)]))
    np.testing.assert_allclose(runs[0], runs[1], atol=2e-3)


@given(
    st.integers(0, 10**6),
    st.sampled_from(["bins", "per_prompt", "index"]),
    st.sampled_from([1, 4]),
    st.integers(8, 40),
    st.floats(-1, 1),
)
@settings(max_examples=30)
def test_every_action_spends_the_budget_exactly(seed, mode, multiple, high, tilt):
    n = MODES[mode]
    problem = make_problem("rollout-budget", n_max=n, mode=mode)
    high = -(-high // multiple) * multiple
    extra = {} if mode == "bins" else {"budget": 8 * n}
    backend = make_backend(
        problem, "twin", num_envs=2, multiple=multiple, high=high, horizon=2, **extra
    )
    outcome = backend.reset(np.array([seed, seed + 1]))
    memory = problem.begin(outcome)
    action = np.random.default_rng(seed).uniform(-1, 1, (2, *problem.action_space.shape))
    decision = problem.decode((action * (1 - abs(tilt)) + tilt).astype(np.float32), memory)
    np.testing.assert_array_equal(decision.units.sum(1), memory.instance.budget)
    problem.check(decision, memory)
    outcome = backend.spend(decision)
    np.testing.assert_array_equal(outcome.tried, decision.units)
    assert (outcome.right <= outcome.tried).all() and (outcome.tokens >= outcome.tried).all()


@given(st.integers(0, 10**6))
def test_an_action_comes_back(seed):
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    backend = make_backend(problem, "twin", horizon=2, budget=4096, high=4096)
    memory = problem.begin(backend.reset(np.array([seed])))
    action = np.random.default_rng(seed).uniform(-0.5, 0.5, (1, 8)).astype(np.float32)
    decision = problem.decode(action, memory)
    again = problem.decode(problem.action_of(decision, memory), memory)
    assert np.abs(decision.units - again.units).max() <= 1


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full(10, np.nan, np.float32), "NaN"),
        (np.zeros(9, np.float32), "shape"),
        (np.zeros(10, np.int64), "dtype"),
    ],
)
def test_unusable_actions_are_refused(action, message):
    env = gym.make(ID, disable_env_checker=True).unwrapped
    env.reset(seed=0)
    with pytest.raises(AllocgymError, match=message):
        env.step(action)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "hard"}, "Did you mean 'hard-tail'"),
        ({"mode": "bin"}, "Did you mean 'bins'"),
        ({"n_max": 1}, "n_max"),
        ({"horizonn": 3}, "Did you mean 'horizon'"),
        ({"budget": 100, "rounds": 3}, "multiple of rounds"),
        ({"high": 2}, "low, high"),
        ({"granularity": "prompt"}, "granularity"),
    ],
)
def test_a_wrong_argument_is_told_in_one_sentence(arguments, message):
    with pytest.raises(AllocgymError, match=message) as caught:
        gym.make(ID, **arguments)
    assert "\n" not in str(caught.value)


def test_the_books_balance_and_end():
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    backend = make_backend(problem, "simpy", horizon=2)
    backend.reset(np.array([0]))
    even = Shares(np.full((1, 8), 8))
    for _ in range(2):
        outcome = backend.spend(even)
    assert outcome.done[0] and backend.ledger.left[0] == 0 and outcome.all_rollouts[0] == 128
    with pytest.raises(OutOfBudgetError):
        backend.spend(even)


def test_rounds_add_up_and_update_once():
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    backend = make_backend(problem, "twin", horizon=2, rounds=4)
    first = backend.reset(np.array([0]))
    part = Shares(np.full((1, 8), 2))
    for r in (1, 2, 3):
        outcome = backend.spend(part)
        assert outcome.round[0] == r and outcome.step[0] == 0
        np.testing.assert_array_equal(outcome.ids, first.ids)
        np.testing.assert_array_equal(outcome.tried, 2 * r)
        assert outcome.heldout[0] == first.heldout[0]
    outcome = backend.spend(part)
    assert outcome.round[0] == 0 and outcome.step[0] == 1 and outcome.heldout[0] > first.heldout[0]
    np.testing.assert_array_equal(outcome.last_ids, first.ids)


@pytest.mark.parametrize("backend", ["simpy", "twin"])
@pytest.mark.parametrize(
    ("mode", "n"), [("bins", 10), ("per_prompt", 16), ("per_prompt", 400), ("index", 16)]
)
def test_huge_actions_spend_the_budget_and_no_more(backend, mode, n):
    """A fault of old: 20 in float32 and 160 in float64 broke it, unnoticed."""
    extra = {"temperature": 1e-3} if mode == "index" else {"kappa": 20.0}
    env = gym.make(
        ID, backend=backend, mode=mode, n_max=n, scenario="tiny", horizon=8, **extra
    ).unwrapped
    env.reset(seed=0)
    size = env.action_space.shape[0]
    for period, dtype in enumerate([np.float32, np.float64, np.float16, np.longdouble] * 2):
        action = np.zeros(size, dtype)
        action[: 1 + (period // 4) * (size - 2)] = 6e4 if dtype is np.float16 else 1e30
        action[-1] = -action[0]
        clipped = np.clip(action, -1, 1)
        expected = env.problem.decode(clipped[None], env.memory).units
        observation, reward, done, _, info = env.step(action)
        np.testing.assert_array_equal(info["decision"].units, expected)
        assert info["spent"] == env.outcome.instance.budget[0] and info["decision"].units.min() >= 0
        assert np.isfinite(reward) and all(np.isfinite(v).all() for v in observation.values())
    assert done and env.backend.ledger.left[0] == 0


@pytest.mark.parametrize("rounds", [1, 4])
def test_scores_are_those_of_the_curves(rounds):
    """What the suites work out of all outcomes, out of the memory alone."""
    env = gym.make_vec(ID, num_envs=3, scenario="hetero-cost", horizon=5, rounds=rounds)
    env.reset(seed=0)
    outcomes = [env.unwrapped.outcome]
    for action in plans(3, 10, 5 * rounds):
        info = env.step(action)[-1]
        # The environments have begun anew where the last outcome ended their episodes.
        outcomes.append(env.unwrapped.outcome if "final_info" not in info else None)
    made = info["final_info"]
    problem = env.unwrapped.problem
    backend = make_backend(problem, "twin", "hetero-cost", num_envs=3, horizon=5, rounds=rounds)
    memory = problem.begin(backend.reset(np.arange(3)))
    outcomes = [backend.outcome]
    for action in plans(3, 10, 5 * rounds):
        outcomes.append(backend.spend(problem.decode(action, memory)))
        memory = problem.update(memory, outcomes[-1])
    data = curves.curves(outcomes)
    for axis in curves.AXES:
        area = np.trapezoid(data["accuracy"], data[axis], axis=1) / data[axis][:, -1]
        np.testing.assert_allclose(made[f"mean over {axis}"], area, rtol=1e-12)
        grid = curves.area(data[axis], data["accuracy"], data[axis][:, -1])
        np.testing.assert_allclose(area, grid, rtol=1e-3)
    np.testing.assert_array_equal(made["held-out accuracy"], data["accuracy"][:, -1])
    for axis in ("tokens", "seconds"):
        np.testing.assert_array_equal(made[axis], data[axis][:, -1])
    for which in ("prompt", "rollout"):
        mean = data[f"{which}_ratio"][:, 1:].mean(1)
        np.testing.assert_allclose(made[f"ratio per {which}"], mean, rtol=1e-12)
    assert next(iter(made)) == "held-out accuracy" and problem.higher_is_better


@pytest.mark.parametrize("autoreset", ["same_step", "next_step"])
@pytest.mark.parametrize("mode", MODES)
def test_rows_are_scalar_environments_through_resets(mode, autoreset):
    arguments = {
        "scenario": "prereq",
        "mode": mode,
        "n_max": MODES[mode],
        "horizon": 3,
        "rounds": 2,
    }
    many = gym.make_vec(ID, num_envs=2, autoreset_mode=autoreset, **arguments)
    first, _ = many.reset(seed=8)
    scalars = [gym.make(ID, backend="twin", **arguments) for _ in range(2)]
    for i, env in enumerate(scalars):
        observation, _ = env.reset(seed=8 + i)
        for key in observation:
            np.testing.assert_array_equal(observation[key], first[key][i])
    for action in plans(2, many.single_action_space.shape[0], 6):
        observation, reward, done, _, info = many.step(action)
        last = info.get("final_obs", observation)
        for i, env in enumerate(scalars):
            mine, gain, over, _, _ = env.step(action[i])
            assert gain == reward[i] and over == done[i]
            for key in mine:
                np.testing.assert_array_equal(mine[key], last[key][i])
    assert done.all()
    many.step(action)


def test_what_rows_are_asked_for_is_not_dropped():
    kept = build("rollout-budget", mode="per_prompt", n_max=16, budget=512)
    assert kept.scenario.rows == 16 and kept.scenario.budget == 512
    follows = build("rollout-budget", mode="per_prompt", n_max=16)
    assert follows.scenario.rows == 16 and follows.scenario.budget == 128
    for arguments in ({"mode": "per_prompt", "rows": 32}, {"levels": 9}):
        with pytest.raises(AllocgymError, match="n_max"):
            build("rollout-budget", **arguments)


def test_the_reward_is_accuracy_less_price_and_never_a_ratio():
    env = gym.make(ID, backend="twin", price=0.01, **SMALL)
    env.reset(seed=0)
    start = float(env.unwrapped.outcome.heldout[0])
    total, cost, done = 0.0, 0.0, False
    while not done:
        _, reward, done, _, info = env.step(np.zeros(10, np.float32))
        total += reward
        cost += info["reward_terms"]["cost"]
        for which in ("prompt", "rollout"):
            assert 0 <= info["scores"][f"ratio per {which}"] <= 1
    assert cost < 0
    assert total - cost == pytest.approx(info["scores"]["held-out accuracy"] - start)


def test_a_length_schedule_buys_more_rollouts_with_the_same_tokens():
    problem = make_problem("rollout-budget", n_max=16, mode="per_prompt")
    backend = make_backend(
        problem, "twin", num_envs=20, horizon=8, max_tokens=2000.0, length_decay=0.5, length_every=2
    )
    outcome = backend.reset(np.arange(20))
    budgets, tokens, before = [], [], 0.0
    memory = problem.begin(outcome)
    while not outcome.done.all():
        budgets.append(int(outcome.instance.budget[0]))
        outcome = backend.spend(problem.decode(np.zeros((20, 16), np.float32), memory))
        memory = problem.update(memory, outcome)
        tokens.append(float((outcome.all_tokens - before).mean()))
        before = outcome.all_tokens
    assert budgets[0] == budgets[1] < budgets[2] < budgets[-1]
    np.testing.assert_allclose(tokens, tokens[0], rtol=0.1)
    assert backend.ledger.left.sum() == 0


def test_three_ways_skip_rollouts_or_demonstration():
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    gains = {}
    for name, units in {"demonstrations": [1] * 8, "rollouts": [8, 0, 0, 0, 0, 0, 0, 0]}.items():
        backend = make_backend(
            problem, "twin", num_envs=1, horizon=2, budget=8, three_way=True, pool="same"
        )
        start = backend.reset(np.array([0])).heldout[0]
        gains[name] = backend.spend(Shares(np.array([units]))).heldout[0] - start
    plain = make_backend(problem, "twin", num_envs=1, horizon=2, budget=8, pool="same")
    start = plain.reset(np.array([0])).heldout[0]
    alone = plain.spend(Shares(np.ones((1, 8), np.int64))).heldout[0] - start
    assert alone == 0 and gains["demonstrations"] > 0 and gains["rollouts"] > 0


def test_a_tree_search_is_what_its_formula_says():
    """20,000 searches against P(Binomial(n depth, p^(1/depth)) >= depth), and best of n by hand."""
    from scipy.stats import binom

    from allocgym.simulators.rollout_budget import search

    p, n = np.array([0.05, 0.2, 0.6])[:, None], np.array([2.0, 3.0, 1.0])[:, None]
    u = np.random.default_rng(0).random((4, 3, 20_000))
    done, alike = search.climb(p, n, u)
    exact = binom.sf(3, n * 4, p**0.25)
    np.testing.assert_allclose(search.solved("tree", p, n, 4), exact, rtol=1e-9)
    np.testing.assert_allclose(done.mean(1), exact[:, 0], atol=0.012)
    # What it says of p is too much where searches are short, but in order.
    said = alike.mean(1) / n[:, 0]
    assert (np.diff(said) > 0).all() and (said > p[:, 0]).all() and (said < p[:, 0] + 0.15).all()
    np.testing.assert_allclose(search.solved("best-of-n", p, n, 4), 1 - (1 - p) ** n)


@pytest.mark.parametrize("kind", ["best-of-n", "tree"])
@pytest.mark.parametrize("mode", ["bins", "per_prompt"])
def test_search_counts_prompts_solved_and_teaches_nothing(kind, mode):
    problem = make_problem("rollout-budget", n_max=10 if mode == "bins" else 16, mode=mode)
    backend = make_backend(problem, "twin", num_envs=8, horizon=4, search=kind)
    outcome = backend.reset(np.arange(8))
    rates = backend.state.rates.copy()
    memory = problem.begin(outcome)
    solved = offered = 0
    while not outcome.done.all():
        action = np.zeros((8, *problem.action_space.shape), np.float32)
        offered = offered + outcome.prompts.sum(1)
        outcome = backend.spend(problem.decode(action, memory))
        memory = problem.update(memory, outcome)
        solved = solved + outcome.mixed.sum(1)
    np.testing.assert_allclose(outcome.heldout, solved / offered, rtol=1e-12)
    np.testing.assert_array_equal(backend.state.rates, rates)
    assert (0 < outcome.heldout).all() and (outcome.heldout <= 1).all()


def test_coverage_is_the_best_split_of_known_rates():
    """Against all splits of six attempts over three prompts."""
    import itertools

    from allocgym.agents.rollout_budget.rules import Coverage

    p = np.array([0.1, 0.3, 0.7])
    best = max(
        (n for n in itertools.product(range(7), repeat=3) if sum(n) == 6),
        key=lambda n: (1 - (1 - p) ** np.array(n)).sum(),
    )
    from types import SimpleNamespace

    one = np.ones((1, 3))
    view = SimpleNamespace(
        a=p[None] * 1e9,
        b=(1 - p[None]) * 1e9,
        prompts=one,
        tried=0 * one,
        right=0 * one,
        low=np.zeros((1, 3), int),
        high=np.full((1, 3), 6),
        budget=np.array([6]),
        multiple=1,
    )
    assert Coverage().units(view)[0].tolist() == list(best)
