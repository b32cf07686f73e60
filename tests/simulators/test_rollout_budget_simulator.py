import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocgym.envs.core.builder import build, make_backend, make_problem
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.scenario import choose
from allocgym.simulators.core import public_data
from allocgym.simulators.rollout_budget import calibration, costs, law, recorded, sampling
from allocgym.simulators.rollout_budget.scenario import SCENARIOS, fit


@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 9))
def test_simpy_plays_what_the_recursion_says(seed, n, lanes):
    rng = np.random.default_rng(seed)
    model = costs.CostModel(lanes=lanes, failure_probability=0.1, verify_seconds=0.05)
    units = rng.integers(0, 9, (n, 3)).astype(float)
    units[0] += 1
    mean = rng.uniform(100, 2000, (n, 3))
    drawn = costs.durations(
        model,
        units,
        units * mean,
        mean,
        rng.normal(size=(lanes, 3)),
        rng.random(3),
        np.array([0.0, 5e4, 1e5]),
    )
    np.testing.assert_allclose(
        costs.twin_seconds(model, drawn), costs.simpy_seconds(model, drawn), rtol=1e-9
    )


def test_published_step_times_are_reproduced():
    for name, seconds in (("1.5B", 102.0), ("7B", 236.0)):
        model = dataclasses.replace(costs.calibrated(name), jitter=0.0, failure_probability=0.0)
        units = np.full((256, 1), 8.0)
        mean = np.full((256, 1), 500 * np.exp(0.5))
        drawn = costs.durations(
            model,
            units,
            units * mean,
            mean,
            np.zeros((8, 1)),
            np.ones(1) * 0.99,
            (units * mean).sum(0),
        )
        assert costs.twin_seconds(model, drawn)[0] == pytest.approx(seconds, rel=0.05)


def test_rollouts_are_the_same_under_every_policy():
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    found = []
    for units in ([8] * 8, [20, 2, 2, 2, 2, 2, 2, 32]):
        backend = make_backend(problem, "twin", horizon=2, num_envs=1)
        backend.reset(np.array([3]))
        p = backend.true_rates()[0]
        found.append((p, backend.spend(Shares(np.array([units]))).right[0], np.array(units)))
    (p, few, n), (q, many, m) = found
    np.testing.assert_array_equal(p, q)
    more = m >= n
    assert (many[more] >= few[more]).all() and (many[more] - few[more] <= (m - n)[more]).all()
    assert (few[~more] >= many[~more]).all()


def test_counts_follow_the_true_rates():
    problem = make_problem("rollout-budget", n_max=16, mode="per_prompt")
    backend = make_backend(problem, "twin", num_envs=400, horizon=2)
    backend.reset(np.arange(400))
    p = backend.true_rates()
    outcome = backend.spend(Shares(np.full((400, 16), 8)))
    z = (outcome.right - 8 * p).sum() / np.sqrt((8 * p * (1 - p)).sum())
    assert abs(z) < 4
    expected = 1 - p**8 - (1 - p) ** 8
    assert abs((outcome.mixed - expected).mean()) < 0.02


def test_verifier_noise_is_seen_and_cut_rollouts_are_wrong():
    problem = make_problem("rollout-budget", n_max=16, mode="per_prompt")

    def rate(**overrides):
        backend = make_backend(problem, "twin", num_envs=50, pool="same", horizon=2, **overrides)
        backend.reset(np.arange(50))
        return backend.spend(Shares(np.full((50, 16), 8))).right.mean() / 8

    plain = rate()
    assert rate(false_positive=0.5) == pytest.approx(plain + 0.5 * (1 - plain), abs=0.03)
    assert rate(false_negative=0.5) == pytest.approx(plain / 2, abs=0.03)
    assert rate(max_tokens=200.0) < plain / 2


def one_update(tried, right, **overrides):
    made = dataclasses.replace(SCENARIOS["hard-tail"], epoch=1, **overrides)
    drawn = sampling.sample(made, np.array([0]), sampling.Layout(len(tried), bins=False))
    true = drawn.law
    share = ((right > 0) & (right < tried)) * 1.0
    zero = np.zeros(1), np.zeros((true.families, 1))
    return law.advance(
        true,
        *zero,
        np.full((true.families, 1), 0.5),
        true.family,
        tried,
        right,
        share,
        np.ones_like(tried),
    )


def test_unmixed_groups_teach_nothing():
    tried = np.full((8, 1), 8.0)
    for right in (np.zeros((8, 1)), tried.copy()):
        shared, own = one_update(tried, right)
        assert shared[0] == 0 and not own.any()


def test_only_the_family_that_was_tried_gains_of_its_own():
    tried, right = np.zeros((8, 1)), np.zeros((8, 1))
    tried[1], right[1] = 8.0, 4.0
    shared, own = one_update(tried, right)
    assert shared[0] > 0 and own[1, 0] > 0 and not own[[0, 2, 3]].any()


def test_a_closed_gate_keeps_the_next_family_out():
    tried = np.full((8, 1), 8.0)
    right = np.full((8, 1), 4.0)
    _, free = one_update(tried, right, need=0.0)
    _, shut = one_update(tried, right, need=1.0)
    assert shut[1, 0] < 0.05 * free[1, 0] and shut[0, 0] == pytest.approx(free[0, 0])


def test_prompts_pull_alike_under_prompt_weights():
    tried = np.array([[2.0], [30.0], [8.0], [8.0]])
    right = np.array([[1.0], [15.0], [0.0], [0.0]])
    _, by_rollout = one_update(tried, right, loss_weight="rollout")
    _, by_prompt = one_update(tried, right, loss_weight="prompt")
    assert by_rollout[1, 0] > 10 * by_rollout[0, 0]
    assert by_prompt[1, 0] == pytest.approx(by_prompt[0, 0])


def test_even_and_uneven_splits_tie_in_the_control():
    problem = make_problem("rollout-budget", n_max=32, mode="per_prompt")
    ends = []
    uneven = np.tile([24, 40], 16)[None]
    for units in (np.full((1, 32), 32), uneven):
        backend = make_backend(problem, "twin", scenario="homogeneous", num_envs=30, horizon=4)
        backend.reset(np.arange(30))
        for _ in range(4):
            outcome = backend.spend(Shares(np.repeat(units, 30, 0)))
        ends.append(outcome.heldout)
    assert (ends[0] >= ends[1] - 1e-4).all()


VARIANTS = {
    "plain": {},
    "rounds": {"rounds": 4},
    "best of n": {"search": "best-of-n", "rounds": 2},
    "tree": {"search": "tree", "rounds": 2},
    "length": {"max_tokens": 2000.0, "length_decay": 0.5, "length_every": 1, "high": 64},
    "longer": {"max_tokens": 200.0, "length_decay": 3.0, "length_every": 1, "rounds": 2},
    "gates": {"need": 0.4, "forget": 0.1, "rounds": 2, "families": 4},
}
ROWS = {"bins": 10, "per_prompt": 8}


class Played:
    """Episodes driven by random actions that each environment draws from its own seed."""

    def __init__(self, mode, seeds, horizon=4, **arguments):
        self.problem = make_problem("rollout-budget", n_max=ROWS[mode], mode=mode)
        self.backend = make_backend(
            self.problem, "twin", num_envs=len(seeds), horizon=horizon, **arguments
        )
        self.seeds = np.array(seeds)
        self.outcome = self.backend.reset(self.seeds)
        self.memory = self.problem.begin(self.outcome)
        self.periods = np.zeros(len(seeds), int)

    def restart(self, row, seed):
        where = np.arange(len(self.seeds)) == row
        self.seeds = np.where(where, seed, self.seeds)
        self.outcome = self.backend.reset(self.seeds, where)
        self.memory = self.memory.where(where, self.problem.begin(self.outcome))
        self.periods[row] = 0

    def step(self):
        drawn = [
            np.random.default_rng([seed, period]).uniform(-1, 1, self.problem.n_max)
            for seed, period in zip(self.seeds, self.periods, strict=True)
        ]
        self.outcome = self.backend.spend(self.problem.decode(np.array(drawn), self.memory))
        self.memory = self.problem.update(self.memory, self.outcome)
        self.periods += 1

    @classmethod
    def replayed(cls, mode, arguments):
        one = cls(mode, [3, 4], **arguments)
        one.step()
        return one

    def seen(self, row):
        """All that comes back from one environment, bit for bit."""
        one = self.outcome.rows(slice(row, row + 1)).to_json()
        observation = self.problem.encode(self.memory)
        left = int(self.backend.ledger.left[row])
        return one, {k: v[row].tolist() for k, v in observation.items()}, left


@pytest.mark.parametrize("mode", ROWS)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("before", [1, 3])
def test_a_row_that_begins_anew_amid_others_is_as_if_alone(mode, variant, before):
    """A fault of old: length and rounds were taken to be those of the row that is furthest on."""
    arguments = VARIANTS[variant]
    three = Played(mode, [5, 6, 7], **arguments)
    alone = {row: Played(mode, [seed], **arguments) for row, seed in enumerate([5, 6, 7])}

    def step():
        three.step()
        for row, one in alone.items():
            one.step()
            assert three.seen(row) == one.seen(0), (variant, row, int(one.periods[0]))

    for _ in range(before):
        step()
    three.restart(1, 99)
    alone[1] = Played(mode, [99], **arguments)
    assert three.seen(1) == alone[1].seen(0)
    while not three.outcome.done.any():
        step()
    assert three.outcome.done.tolist() == [True, False, True]
    assert three.backend.ledger.left[[0, 2]].tolist() == [0, 0] and three.backend.ledger.left[1] > 0


@pytest.mark.parametrize("mode", ROWS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_state_can_be_kept_and_put_back(mode, variant):
    """In the middle of an update where it has rounds; by hand, copied, and pickled."""
    played = Played(mode, [3, 4], **VARIANTS[variant])
    played.step()
    state = played.backend.get_state()
    copies = [copy.deepcopy(played), pickle.loads(pickle.dumps(played))]
    other = Played(mode, [0, 1], **VARIANTS[variant])
    other.backend.set_state(state)
    assert other.backend.outcome == played.outcome
    other.memory, other.seeds, other.periods = played.memory, played.seeds, played.periods.copy()
    for _ in range(2):
        for one in (played, other, *copies):
            one.step()
            assert one.seen(0) == played.seen(0) and one.seen(1) == played.seen(1)
    played.backend.set_state(state)
    again = played.backend.outcome
    assert again == Played.replayed(mode, VARIANTS[variant]).outcome


def test_lengths_that_grow_leave_room_for_every_prompt():
    problem = make_problem("rollout-budget", n_max=8, mode="per_prompt")
    backend = make_backend(
        problem,
        "twin",
        horizon=6,
        max_tokens=50.0,
        length_decay=10.0,
        length_every=1,
        low=2,
        high=9,
    )
    outcome = backend.reset(np.array([0]))
    memory = problem.begin(outcome)
    budgets = []
    while not outcome.done.all():
        budgets.append(int(outcome.instance.budget[0]))
        decision = problem.decode(np.ones((1, 8), np.float32), memory)
        problem.check(decision, memory)
        outcome = backend.spend(decision)
        memory = problem.update(memory, outcome)
    assert budgets[0] == 64 and budgets[-1] == 16 and backend.ledger.left[0] == 0


HOSTILE = (np.nan, np.inf, -np.inf, 1e300, -1e300, 2**70, -1, "x", None, [], [1, "a"], {}, True)


@pytest.mark.parametrize("backend", ["simpy", "twin"])
def test_no_value_of_any_argument_ends_in_anything_but_a_sentence(backend):
    """Every field of the scenario, every argument of problem and back end, every price."""
    names = [f.name for f in dataclasses.fields(SCENARIOS["tiny"]) if f.name != "name"]
    names += ["n_max", "mode", "kappa", "temperature", "granularity", "dtype", "cost", "num_envs"]
    prices = [f.name for f in dataclasses.fields(costs.CostModel)]
    given = [({name: value}, name) for name in names for value in HOSTILE]
    given += [({"cost": {name: value}}, name) for name in prices for value in HOSTILE]
    given += [({"cells": "/nowhere.json", "scenario": "tiny"}, "cells")]
    given += [({"families": 2, "scenario": "tiny"}, "families")]
    given += [({"multiple": 8, "high": 12, "budget": 768}, "high")]
    refused = 0
    for arguments, name in given:
        try:
            made = build("rollout-budget", backend, **{"num_envs": 2, "horizon": 2} | arguments)
        except AllocgymError as error:
            named = name in str(error) or next(iter(arguments)) in str(error)
            assert named and "\n" not in str(error), (arguments, str(error))
            refused += 1
            continue
        # What is let through plays a whole episode.
        outcome = made.reset(np.arange(made.spec.batch_size))
        memory = made.problem.begin(outcome)
        shape = (made.spec.batch_size, *made.problem.action_space.shape)
        for _ in range(2):
            outcome = made.spend(made.problem.decode(np.zeros(shape), memory))
            memory = made.problem.update(memory, outcome)
            observed = made.problem.encode(memory).values()
            assert all(np.isfinite(o).all() for o in observed), arguments
    assert refused > 0.9 * len(given)


@pytest.mark.parametrize(
    ("field", "value"),
    [("pool", "x"), ("families", 9), ("budget", 0), ("own", 2.0), ("gain", 0.0), ("model", "3B")],
)
def test_a_scenario_out_of_range_is_refused(field, value):
    with pytest.raises(AllocgymError, match=field):
        choose(SCENARIOS, "qwen1.5b-dsr", {field: value})


def test_the_population_is_the_fitted_one():
    rates = sampling.initial_rates("beta", (np.arange(20_000) + 0.5) / 20_000)
    a, b = fit("items")["initial beta"]
    assert rates.mean() == pytest.approx(a / (a + b), abs=0.01)
    hard = sampling.initial_rates("hard-tail", (np.arange(20_000) + 0.5) / 20_000)
    assert (hard < 0.02).mean() == pytest.approx(0.5, abs=0.01)


def test_fits_say_where_they_come_from_and_how_far_off_they_are():
    items, tiny = fit("items"), fit("tiny")
    assert items["held-out rmse of the mean curve"] < items["held-out rmse, early mean"] / 4
    assert tiny["held-out rmse of accuracy"] < 0.01
    assert all(f["source"] for f in (items, tiny, fit("cost")))


needs_data = pytest.mark.skipif(
    not public_data.available(recorded.TRAJECTORIES), reason="public data not found"
)


@needs_data
def test_the_update_law_orders_recorded_runs_it_was_not_fitted_to():
    tiny = fit("tiny")
    runs = recorded.tiny_runs()
    from scipy.special import expit

    areas = {}
    for run in runs:
        path = calibration.ability(
            *calibration.signals(run),
            tiny["eta"],
            tiny["own"],
            tiny["noise"],
            tiny["between"],
            tiny["limit"],
        )
        x = np.array(tiny["base"]) + np.array(tiny["slope"]) * path[run.logged][:, tiny["families"]]
        areas.setdefault(run.name, []).append(expit(x).mean())
    mean = {k: np.mean(v) for k, v in areas.items()}
    assert min(mean, key=mean.get) == "anti" and max(mean, key=mean.get) == "uniform"
    assert mean["knapsack-beta, prompt-weighted"] > mean["knapsack-beta"] > mean["anti"]


@needs_data
def test_recorded_data_are_whole():
    assert recorded.trajectories().shape[0] == 900
    runs = recorded.tiny_runs()
    assert len(runs) == 18 and all((r.right <= r.tried).all() for r in runs)
