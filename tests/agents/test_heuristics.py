import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.data_mixing.heuristics import (
    ConstantReplay,
    OpenLoop,
    RandomMixer,
    SkillIt,
    Static,
    odm_update,
)
from allocgym.envs.core.errors import AllocgymError

NAMES = [n for n in catalogue.names("data-mixing") if not n.startswith("oracle")]


def told(agent, backend, seeds):
    outcome = backend.reset(np.asarray(seeds))
    agent.begin(backend.spec)
    agent.tell(outcome)
    return outcome


def test_odm_by_hand():
    # K = 3 at round 5: eps_5 = sqrt(ln 3 / 15), eps_4 = sqrt(ln 3 / 12), both under 1/3.
    reward = np.array([[2.0, 3.0, 1.0, 0.0]])
    present = np.array([[True, True, True, False]])
    now, before = 0.27063, 0.30257
    p = np.exp(before * np.array([2.0, 3.0, 1.0]))
    expected = (1 - 3 * now) * p / p.sum() + now
    got = odm_update(reward, present, np.array([[3]]), np.array([[5]]))
    np.testing.assert_allclose(got, [[*expected, 0.0]], atol=2e-5)
    assert got.sum() == pytest.approx(1)


def test_odm_starts_uniform_and_smooths_its_rewards(problem, twin):
    agent = catalogue.make("odm", problem)
    outcome = told(agent, twin, range(3))
    present = outcome.instance.present
    np.testing.assert_allclose(agent.shares(), present / present.sum(1, keepdims=True))
    first = 0.1 * np.exp(outcome.losses * np.log(2))
    outcome = twin.spend(agent.ask())
    agent.tell(outcome)
    second = 0.9 * first + 0.1 * np.exp(outcome.losses * np.log(2))
    k = present.sum(1, keepdims=True)
    expected = odm_update(second, present, k, np.full((3, 1), 2))
    np.testing.assert_allclose(agent.shares(), expected, rtol=1e-12)


def test_skill_it_looks_at_the_last_three_evaluations(problem, make_backend):
    backend = make_backend(scenario="skills", num_envs=2)
    agent = SkillIt(problem, eta=0.5)
    outcome = told(agent, backend, [0, 1])
    seen = [outcome.losses]
    for _ in range(4):
        outcome = backend.spend(agent.ask())
        agent.tell(outcome)
        seen.append(outcome.losses)
    inst = outcome.instance
    for row in range(2):
        n = int(inst.present[row].sum())
        recent = sum(losses[row, :n] for losses in seen[-3:]) * np.log(2)
        chain = np.eye(n) + 0.5 * np.eye(n, k=1)  # skill i helps i + 1
        weight = np.exp(0.5 * (chain @ recent))
        np.testing.assert_allclose(agent.shares()[row, :n], weight / weight.sum(), rtol=1e-10)
        assert not agent.shares()[row, n:].any()


def test_replay_goes_to_the_sources(problem, twin):
    agent = ConstantReplay(problem, 0.25)
    inst = told(agent, twin, range(3)).instance
    split = agent.shares()
    np.testing.assert_allclose((split * inst.source).sum(1), 0.25)
    np.testing.assert_allclose(split.sum(1), 1)
    for row in range(3):
        assert np.ptp(split[row][inst.source[row]]) == pytest.approx(0)


def test_replay_without_sources_is_uniform(problem, make_backend):
    backend = make_backend(scenario="scratch", num_envs=2)
    agent = ConstantReplay(problem, 0.25)
    inst = told(agent, backend, [0, 1]).instance
    np.testing.assert_allclose(
        agent.shares(), inst.present / inst.present.sum(1, keepdims=True), rtol=1e-12
    )


def test_open_loop_replays_its_schedule(problem, make_backend):
    backend = make_backend(scenario="scratch", num_envs=2, domains=(4, 4), floor=0.0)
    schedule = np.random.default_rng(0).dirichlet(np.ones(4), 10)
    schedule = np.pad(schedule, ((0, 0), (0, 4)))
    outcomes = rollout(OpenLoop(problem, schedule), backend, np.arange(2))
    for row, outcome in zip(schedule, outcomes[1:], strict=True):
        assert np.abs(outcome.units / 320 - row).max() < 1 / 320


def test_a_split_may_be_one_domain_alone(problem, make_backend):
    backend = make_backend(scenario="low-resource", num_envs=8, floor=0.0)
    outcomes = rollout(Static(problem, np.eye(8)[0]), backend, np.arange(8))
    assert outcomes[-1].done.all()
    assert not outcomes[-1].seen[~outcomes[0].instance.present].any()


@pytest.mark.parametrize("scenario", ["continual-pretraining", "low-resource", "skills"])
@pytest.mark.parametrize("name", NAMES)
def test_every_agent_spends_everything(problem, make_backend, name, scenario):
    backend = make_backend(scenario=scenario, num_envs=4)
    outcomes = rollout(catalogue.make(name, problem), backend, np.arange(4))
    assert outcomes[-1].done.all() and len(outcomes) == 11
    np.testing.assert_array_equal(backend.ledger.left, 0)
    np.testing.assert_array_equal(outcomes[-1].seen.sum(1), backend.ledger.granted)


@pytest.mark.parametrize("name", NAMES)
def test_an_agent_is_a_function_of_what_it_was_told(problem, make_backend, name):
    backend = make_backend(num_envs=2)
    agent = catalogue.make(name, problem)
    runs = [rollout(agent, backend, np.arange(2), seed=3) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.units, other.units)


def test_random_mixers_differ_by_seed(problem, make_backend):
    backend = make_backend(num_envs=2)
    one, other = (
        rollout(RandomMixer(problem), backend, np.arange(2), seed)[1].units for seed in (0, 7)
    )
    assert (one != other).any()


def test_asking_before_telling_is_an_error(problem, twin):
    agent = catalogue.make("uniform", problem)
    agent.begin(twin.spec)
    with pytest.raises(AllocgymError, match="tell"):
        agent.ask()


def test_an_unknown_agent_is_told_its_neighbour(problem):
    with pytest.raises(AllocgymError, match="Did you mean 'uniform'"):
        catalogue.make("unifrm", problem)


def test_knowing_more_is_never_worse(problem, make_backend):
    pytest.importorskip("torch")
    final = {}
    for name in ("uniform", "oracle-static", "oracle-schedule"):
        backend = make_backend(num_envs=10)
        agent = catalogue.make(name, problem)
        rollout(agent, backend, np.arange(10))
        final[name] = agent.memory.objective
    # Rounding to whole sequences and a finite search leave a little slack.
    assert (final["oracle-static"] <= final["uniform"] + 1e-3).all()
    assert (final["oracle-schedule"] <= final["oracle-static"] + 1e-3).all()
    assert final["oracle-schedule"].mean() < final["oracle-static"].mean()
    assert final["oracle-static"].mean() < final["uniform"].mean()
