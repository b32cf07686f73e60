"""Every environment keeps the rules of Gymnasium and our own, whatever its problem."""

import copy
import pickle
import warnings

import cases
import numpy as np
import pytest
from cases import STEPS, actions, copied, firsts, in_space, over, same, simulated
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from allocgym.envs.core.errors import AllocgymError

ALL = cases.cases()
ALIKE = [c for c in ALL if not c.kind.measured]
EACH = over(ALIKE)
ONE = over([c for c in firsts() if not c.kind.measured])
# Where everything is timed anew, one of them says as much as all.
LOOPS = over([*ALIKE, *[c for c in firsts() if c.kind.measured]])
VECTOR = over([c for c in ALL if c.backend == c.entry.vector_backend and c.kind.batched])
VECTOR_ONE = over([c for c in firsts() if c.backend == c.entry.vector_backend and c.kind.batched])


def episode(env, seed, plan):
    """Observations, rewards and ends, the first observation included; stops at the end."""
    observation, _ = env.reset(seed=seed)
    steps = [(copied(observation), 0.0, False)]
    for action in plan:
        observation, reward, done, truncated, _ = env.step(action)
        assert not truncated
        steps.append((copied(observation), reward, done))
        if done:
            break
    return steps


def alike(one, other):
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        same(a[0], b[0])
        assert a[1] == b[1] and a[2] == b[2]


def test_every_entry_has_a_case():
    from allocgym.envs.core.registry import entries

    assert {c.entry.id for c in ALL} == {e.id for e in entries()}


@EACH
def test_gymnasium_has_no_complaint(case):
    env = case.env()
    check_env(env, skip_render_check=True, skip_close_check=True)


@ONE
def test_stable_baselines3_has_no_complaint(case):
    checker = pytest.importorskip("stable_baselines3.common.env_checker")
    with warnings.catch_warnings():
        # It advises on what it takes for pictures and flat boxes.
        warnings.simplefilter("ignore")
        checker.check_env(case.env(), warn=False, skip_render_check=True)


@LOOPS
def test_a_random_loop_spends_the_budget_exactly(case):
    env = case.env()
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    spent = wasted = 0
    granted = int(env.backend.ledger.granted[0])
    assert granted > 0
    ends = 0
    # A real run takes its time: two whole episodes of it.
    for _ in range(STEPS):
        if ends == 2 and not case.kind.batched:
            break
        assert in_space(env.observation_space, observation)
        observation, reward, done, truncated, info = env.step(env.action_space.sample())
        assert np.isfinite(reward) and not truncated
        assert info["spent"] >= 0 and info["wasted"] >= 0 and info["seconds"] >= 0
        assert not np.isnan(list(info["scores"].values())).any()
        assert not done or np.isfinite(next(iter(info["scores"].values())))
        spent, wasted = spent + info["spent"], wasted + info["wasted"]
        ledger = env.backend.ledger
        assert int(ledger.spent[0]) == spent and int(ledger.wasted[0]) == wasted
        assert int(ledger.left[0]) == granted - spent - wasted >= 0
        assert not done or in_space(env.observation_space, observation)
        if done:
            if case.kind.spends_all:
                assert spent + wasted == granted, "the episode ended before its budget was spent"
            with pytest.raises(AllocgymError, match="over"):
                env.step(env.action_space.sample())
            observation, _ = env.reset()
            spent, wasted, ends = 0, 0, ends + 1
            granted = int(env.backend.ledger.granted[0])
        else:
            assert ledger.left[0] > 0, "the budget was spent before the episode ended"
    env.close()
    with pytest.raises(AllocgymError, match="closed"):
        env.step(env.action_space.sample())
    with pytest.raises(AllocgymError, match="closed"):
        env.reset(seed=0)


@ONE
def test_stepping_before_reset_is_refused(case):
    env = case.env()
    with pytest.raises(AllocgymError, match="reset"):
        env.step(env.action_space.sample())


@EACH
def test_an_episode_is_a_function_of_seed_and_actions(case):
    one, other = case.env(), case.env()
    plan = actions(one.action_space, 1, 25)[:, 0]
    alike(episode(one, 5, plan), episode(other, 5, plan))
    # And of nothing that came before.
    alike(episode(one, 5, plan), episode(other, 5, plan))


@EACH
def test_writing_into_an_observation_changes_nothing(case):
    one, other = case.env(), case.env()
    plan = actions(one.action_space, 1, 6)[:, 0]
    a, _ = one.reset(seed=3)
    b, _ = other.reset(seed=3)
    for action in plan:
        for value in a.values() if isinstance(a, dict) else [a]:
            assert value.flags.writeable
            value[...] = 0
        a, reward, done, _, _ = one.step(action)
        b, expected, _, _, _ = other.step(action)
        same(a, b)
        assert reward == expected
        if done:
            break


@over(simulated(ALL))
def test_a_kept_state_brings_the_same_outcomes(case):
    backend = case.build(3)
    if "state" not in backend.spec.capabilities:
        pytest.skip("keeps no state")
    from allocgym.agents.core import catalogue

    agent = catalogue.make(case.entry.fallback, backend.problem)
    agent.begin(backend.spec)
    agent.tell(backend.reset(np.arange(3)))
    for _ in range(2):
        if backend.outcome.done.all():
            break
        agent.tell(backend.spend(agent.ask()))
    kept, before = backend.get_state(), backend.outcome.to_json()
    if backend.outcome.done.all():
        return
    decision = agent.ask()
    expected, books = backend.spend(decision).to_json(), backend.ledger.to_json()
    backend.set_state(kept)
    assert backend.outcome.to_json() == before
    assert backend.spend(decision).to_json() == expected
    assert backend.ledger.to_json() == books
    fresh = case.build(3)
    fresh.set_state(kept)
    assert fresh.spend(decision).to_json() == expected


@over(simulated(firsts()))
@pytest.mark.parametrize("way", ["pickle", "cloudpickle", "deepcopy"])
def test_a_running_environment_can_be_copied(case, way):
    if way == "cloudpickle":
        cloudpickle = pytest.importorskip("cloudpickle")
        copy_of = lambda env: cloudpickle.loads(cloudpickle.dumps(env))  # noqa: E731
    elif way == "pickle":
        copy_of = lambda env: pickle.loads(pickle.dumps(env))  # noqa: E731
    else:
        copy_of = copy.deepcopy
    env = case.env()
    env.reset(seed=2)
    plan = actions(env.action_space, 1, 4)[:, 0]
    early = copy_of(env)
    env.step(plan[0])
    late = copy_of(env)
    early.step(plan[0])
    for action in plan[1:]:
        steps = [e.step(action) for e in (env, early, late)]
        for other in steps[1:]:
            same(steps[0][0], other[0])
            assert steps[0][1:4] == other[1:4]
        if steps[0][2]:
            break


@ONE
def test_actions_outside_are_clipped_or_refused_in_a_sentence(case):
    env = case.env()
    space = env.action_space
    for size in (1e30, -1e30, 20.0, 160.0):
        env.reset(seed=0)
        granted = int(env.backend.ledger.granted[0])
        if isinstance(space, spaces.Box):
            for dtype in (np.float32, np.float64):
                env.reset(seed=0)
                action = np.zeros(space.shape, dtype)
                action[0] = size
                _, reward, _, _, info = env.step(action)
                assert np.isfinite(reward) and 0 <= info["spent"] <= granted
                assert env.backend.ledger.left[0] == granted - info["spent"] - info["wasted"] >= 0
                units = getattr(info["decision"], "units", np.zeros(1))
                assert (units >= 0).all()
        else:
            for value in (-1, 10**9):
                before = env.backend.ledger.to_json()
                with pytest.raises(AllocgymError, match="action") as told:
                    env.step(np.full(space.shape, value))
                assert "\n" not in str(told.value) and env.backend.ledger.to_json() == before


@ONE
@pytest.mark.parametrize("bad", [np.nan, np.inf, "shape", "text", None])
def test_an_unusable_action_is_refused_and_changes_nothing(case, bad):
    env, other = case.env(), case.env()
    plan = actions(env.action_space, 1, 2)[:, 0]
    env.reset(seed=1)
    other.reset(seed=1)
    if bad == "shape":
        wrong = np.zeros((*env.action_space.shape, 2), env.action_space.dtype)
    elif isinstance(bad, str) or bad is None:
        wrong = np.full(env.action_space.shape, bad, dtype=object)
    else:
        wrong = np.full(env.action_space.shape, bad)
    with pytest.raises(AllocgymError, match="action"):
        env.step(wrong)
    a, b = env.step(plan[0]), other.step(plan[0])
    same(a[0], b[0])
    assert a[1:4] == b[1:4]


@VECTOR
@pytest.mark.parametrize("count", [3, 7])
def test_a_row_is_its_scalar_environment_bit_for_bit(case, count):
    many = case.many(count)
    plan = actions(many.single_action_space, count, 40, seed=count)
    observation, _ = many.reset(seed=11)
    rows = [[(copied({k: v[i] for k, v in observation.items()}), 0.0, False)] for i in range(count)]
    running = np.ones(count, bool)
    for action in plan:
        observation, reward, done, _, info = many.step(action)
        shown = info.get("final_obs", observation)
        for i in np.flatnonzero(running):
            where = shown if done[i] else observation
            rows[i].append((copied({k: v[i] for k, v in where.items()}), reward[i], bool(done[i])))
        running &= ~done
        if not running.any():
            break
    for i in range(count):
        alike(episode(case.env(), 11 + i, plan[:, i]), rows[i])


@VECTOR_ONE
def test_one_bad_row_harms_nobody(case):
    many, other = case.many(3), case.many(3)
    plan = actions(many.single_action_space, 3, 3)
    many.reset(seed=0)
    other.reset(seed=0)
    bad = plan[0].copy()
    if isinstance(many.single_action_space, spaces.Box):
        bad[1] = np.nan
    else:
        bad[1] = -7
    with pytest.raises(AllocgymError, match="action"):
        many.step(bad)
    for action in plan:
        a, b = many.step(action), other.step(action)
        same(a[0], b[0])
        np.testing.assert_array_equal(a[1], b[1])


@VECTOR
@pytest.mark.parametrize("mode", ["same_step", "next_step"])
def test_episodes_follow_each_other(case, mode):
    many = case.many(3, autoreset_mode=mode)
    assert many.metadata["autoreset_mode"] == (
        AutoresetMode.SAME_STEP if mode == "same_step" else AutoresetMode.NEXT_STEP
    )
    plan = actions(many.single_action_space, 3, 60, seed=1)
    many.reset(seed=4)
    seeds = np.arange(4, 7)
    lone = [case.env() for _ in range(3)]
    for env, seed in zip(lone, seeds, strict=True):
        env.reset(seed=int(seed))
    over = np.zeros(3, bool)
    ends = 0
    for action in plan:
        observation, reward, done, truncated, info = many.step(action)
        assert not truncated.any()
        for i in range(3):
            row = {k: v[i] for k, v in observation.items()}
            if over[i]:
                # The step after the end begins the next episode and ignores its action.
                seeds[i] = (seeds[i] * 1103515245 + 12345) % 2**31
                fresh, _ = lone[i].reset(seed=int(seeds[i]))
                same(fresh, row)
                assert reward[i] == 0 and not done[i]
                over[i] = False
                continue
            expected, value, ended, _, _ = lone[i].step(action[i])
            assert value == reward[i] and ended == done[i]
            if ended and mode == "same_step":
                same(expected, {k: v[i] for k, v in info["final_obs"].items()})
                seeds[i] = (seeds[i] * 1103515245 + 12345) % 2**31
                fresh, _ = lone[i].reset(seed=int(seeds[i]))
                same(fresh, row)
            else:
                same(expected, row)
                over[i] = ended
            ends += ended
        if ends >= 6:
            break


@VECTOR_ONE
def test_seeds_may_be_given_one_by_one(case):
    env = case.many(2)
    one, _ = env.reset(seed=4)
    one = copied(one)
    listed, _ = env.reset(seed=[4, 5])
    same(one, listed)


@ONE
def test_a_wrong_name_is_told_in_one_sentence(case):
    for arguments in ({"scenario": "no such"}, {"backend": "twinn"}, {"horizonn": 3}):
        with pytest.raises(AllocgymError) as told:
            case.env(**arguments)
        assert "\n" not in str(told.value) and len(str(told.value)) < 2000


@ONE
def test_masks_say_what_is_legal(case):
    env = case.env()
    env.reset(seed=0)
    if not isinstance(env.action_space, spaces.Discrete):
        with pytest.raises(AllocgymError, match="discrete"):
            env.action_masks()
        return
    for _ in range(20):
        mask = env.action_masks()
        assert mask.shape == (env.action_space.n,) and mask.dtype == bool and mask.any()
        if env.step(int(np.flatnonzero(mask)[-1]))[2]:
            break


@ONE
def test_strict_refuses_what_is_not_legal(case):
    try:
        env = case.env(strict=True)
    except AllocgymError:
        pytest.skip("every action is legal in this problem")
    if not isinstance(env.action_space, spaces.Discrete):
        pytest.skip("every action of a box is legal")
    env.reset(seed=0)
    for _ in range(20):
        mask = env.action_masks()
        if not mask.all():
            before = env.backend.ledger.to_json()
            with pytest.raises(AllocgymError, match="action"):
                env.step(int(np.flatnonzero(~mask)[0]))
            assert env.backend.ledger.to_json() == before
        if env.step(int(np.flatnonzero(mask)[0]))[2]:
            break


@over([c for c in firsts() if not c.kind.needs and c.kind.batched])
def test_the_picture_is_an_image(case):
    pytest.importorskip("matplotlib")
    env = case.env(render_mode="rgb_array")
    episode(env, 0, actions(env.action_space, 1, 2)[:, 0])
    picture = env.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.std() > 0
    with pytest.raises(AllocgymError, match="render_mode"):
        type(env)(case.scenario, render_mode="hologram")
