"""Laws, costs and toys of populations against numbers worked out by hand or published."""

import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.benchmarks.population import laws, toys
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.simulators.population import costs, multipower
from allocgym.simulators.population.families import FAMILIES, Modes, Power, Spectrum
from allocgym.simulators.population.scenario import CostModel
from allocgym.simulators.population.toys import Toy, additive, deceptive, multiplicative

PUBLISHED_25M = multipower.MultiPower(3.0405, 0.5247, 0.5079, 363.79, 2.0656, 0.5828, 0.6414)


def test_the_law_by_hand():
    law = multipower.MultiPower(2.0, 0.5, 0.5, 10.0, 1.0, 1.0, 0.5)
    rates = np.array([0.1, 0.1, 0.05, 0.05])
    # S1 = 0.3 after four steps; one fall of .05 at step 2, .1 of rate since.
    x = 0.1 * 0.05**-0.5
    expected = 2.0 + 0.5 * 0.3**-0.5 - 10 * 0.05 * (1 - 1 / (1 + x))
    assert law.loss(rates, np.array([4])) == pytest.approx([expected])


def test_segments_are_the_law_at_every_step():
    family = FAMILIES["multipower"]
    parameters = Power(**{k: np.array([v]) for k, v in vars(PUBLISHED_25M).items()}, periods=3)
    peak, later = 3e-4, 1e-4
    knobs = np.full((1, 1, 1), peak)
    state = family.begin(parameters, knobs)
    for rate, steps in ((peak, 4000), (later, 1000), (later, 1000)):
        state = family.train(parameters, state, np.full((1, 1, 1), rate), np.full((1, 1), steps))
    ramp = np.arange(1, multipower.WARMUP + 1) / multipower.WARMUP * peak
    rates = np.concatenate([[0.0], ramp, np.full(4000, peak), np.full(2000, later)])
    exact = PUBLISHED_25M.loss(rates, np.array([len(rates) - 1]))
    assert family.loss(parameters, state)[0, 0] == pytest.approx(exact[0], abs=2e-3)


def test_blocks_of_a_falling_rate_hardly_matter():
    rates = multipower.schedule("cosine_24000", 24_001)
    at = np.arange(3000, 24_000, 1000)
    gap = PUBLISHED_25M.loss(rates, at) - PUBLISHED_25M.loss(rates, at, multipower.BLOCK)
    assert np.abs(gap).max() < 1e-3


@pytest.mark.parametrize("size", ["25", "100"])
def test_the_committed_fits_hold_on_every_public_curve(size):
    from allocgym.simulators.core import public_data

    if not public_data.available(multipower.FOLDER):
        pytest.skip(f"public data: set {public_data.VARIABLE}")
    assert max(multipower.errors(multipower.fitted()[size], size).values()) < 0.01


def test_the_quadratic_by_hand_and_at_its_edge():
    family = FAMILIES["quadratic"]
    curvature, one = np.array([[2.0]]), np.ones(1)
    parameters = Spectrum(curvature, curvature, np.array([[3.0]]), one, one)
    state = Modes(np.full((1, 1, 1), 0.5))
    knobs = np.array([[[0.1]], [[4.0]]])
    value = 0.5
    for _ in range(7):
        value = (1 - 0.1 * 2.0) ** 2 * value + 0.1**2 * 3.0 / 4.0
    after = family.train(parameters, state, knobs, np.full((1, 1), 7))
    assert after.second[0, 0, 0] == pytest.approx(value, rel=1e-12)
    assert laws.edge_error(20) < 1e-6


def test_simpy_and_twin_finish_at_the_same_time():
    rng = np.random.default_rng(0)
    work = rng.exponential(1.0, (9, 20)) * (rng.random((9, 20)) < 0.9)
    model = CostModel(devices=3)
    np.testing.assert_allclose(
        costs.twin_finish(model, work), costs.simpy_finish(model, work), rtol=1e-9
    )


def test_the_engines_agree_on_an_episode():
    problem = make_problem("population")
    ends = []
    for name in ("simpy", "twin"):
        backend = make_backend(problem, name, num_envs=2)
        ends.append(rollout(catalogue.make("pbt", problem), backend, np.arange(2)))
    for one, other in zip(*ends, strict=True):
        np.testing.assert_allclose(one.seconds, other.seconds, rtol=1e-9)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_state_can_be_put_back():
    problem = make_problem("population")
    backend = make_backend(problem, "twin", num_envs=2)
    memory = problem.begin(backend.reset(np.arange(2)))
    plan = problem.decode(np.ones((2, problem.action_space.shape[0]), int), memory)
    kept = backend.get_state()
    first = backend.spend(plan)
    backend.set_state(kept)
    assert backend.spend(plan) == first


def test_the_toys_separate_policies():
    assert Toy(copies=False).play() == pytest.approx(0.39, abs=0.005)
    assert Toy(explore=multiplicative).play() == pytest.approx(0.39, abs=0.005)
    assert min(Toy(explore=additive).play(seed) for seed in range(3)) >= 1.19
    assert deceptive(toys.greedy) > deceptive(toys.linear) > deceptive(toys.patient)


@pytest.mark.parametrize("scenario", ["known-edge", "language-model"])
def test_nobody_ends_below_the_oracle(scenario):
    problem = make_problem("population")
    scores = {}
    for name in ("oracle", "tuned-wsd", "wsd", "pbt", "random-search", "asha"):
        backend = make_backend(problem, "twin", scenario=scenario, num_envs=30)
        agent = catalogue.make(name, problem)
        rollout(agent, backend, np.arange(30))
        scores[name] = np.log(agent.memory.objective).mean()
    assert min(scores.values()) >= scores["oracle"] - 1e-3
    assert scores["tuned-wsd"] <= scores["pbt"], "greed loses against a tuned schedule"


def test_a_diverged_member_poisons_nobody_and_comes_back():
    problem = make_problem("population")
    backend = make_backend(problem, "twin", num_envs=1)
    memory = problem.begin(backend.reset(np.array([0])))
    inst = backend.outcome.instance
    plan = problem.decode(np.ones((1, problem.action_space.shape[0]), int), memory)
    plan.donor[:] = np.arange(problem.n_max)
    plan.knobs[:] = inst.low[0, 0]
    plan.knobs[0, 0, 0] = inst.high[0, 0]
    plan.steps[:] = memory.outcome.grant // problem.n_max
    for _ in range(3):
        outcome = backend.spend(plan)
    assert not outcome.alive[0, 0] and outcome.alive[0, 1:].all()
    assert np.isfinite(outcome.scores).all()
    plan.donor[0, 0] = 1
    plan.knobs[0, 0, 0] = inst.low[0, 0]
    assert backend.spend(plan).alive.all()
