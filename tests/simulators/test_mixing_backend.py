import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.data_mixing.heuristics import OpenLoop, RandomMixer
from allocgym.envs.core import randomness
from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.data_mixing import costs


@settings(max_examples=80)
@given(
    st.integers(0, 10**6),
    st.integers(1, 9),
    st.integers(1, 5),
    st.floats(0, 1),
    st.floats(0, 1.5),
    st.floats(0.05, 20),
)
def test_the_twin_takes_the_seconds_of_simpy(seed, chunks, prefetch, fails, jitter, loader):
    model = costs.CostModel(
        chunks=chunks,
        prefetch=prefetch,
        failure_probability=fails / chunks,
        jitter=jitter,
        load_tokens_per_second=60_000 * loader,
    )
    batch = 3
    rng = np.random.default_rng(seed)
    units = rng.multinomial(320, rng.dirichlet(np.ones(4)), batch).T
    drawn = costs.durations(
        model,
        units.astype(float),
        rng.uniform(0.5, 2, (4, batch)),
        np.full(batch, 4.0),
        randomness.normal(randomness.stream(np.arange(batch), "load", chunks), seed),
        randomness.normal(randomness.stream(np.arange(batch), "train", chunks), seed),
        randomness.uniform(randomness.stream(np.arange(batch), "failure"), seed)[0],
    )
    np.testing.assert_allclose(
        costs.twin_seconds(model, drawn), costs.simpy_seconds(model, drawn), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("chunks", range(1, 9))
def test_every_chunk_fails_as_often_as_it_should(chunks):
    for probability in np.linspace(0.01, 1 / chunks, 200):
        model = costs.CostModel(chunks=chunks, failure_probability=float(probability))
        edge = np.nextafter(model.failure_probability * chunks, 0)
        chance = np.append((np.arange(chunks) + 0.5) * model.failure_probability, edge)
        zeros = np.zeros((chunks, chunks + 1))
        drawn = costs.durations(
            model, zeros + 40, zeros + 1, np.ones(chunks + 1), zeros, zeros, chance
        )
        np.testing.assert_array_equal(drawn.fails, np.eye(chunks, chunks + 1) + _last(chunks))


def _last(chunks):
    out = np.zeros((chunks, chunks + 1))
    out[-1, -1] = 1
    return out


def test_failures_cost_a_restart_and_the_work_since_the_checkpoint():
    model = costs.CostModel(chunks=3, restart_seconds=60.0)
    quiet = costs.Durations(
        load=np.zeros((3, 1)),
        train=np.array([[1.0], [2.0], [4.0]]),
        fails=np.zeros((3, 1), bool),
        fixed=np.array([0.5]),
    )
    failing = costs.Durations(
        quiet.load, quiet.train, np.array([[False], [True], [False]]), quiet.fixed
    )
    for seconds in (costs.twin_seconds, costs.simpy_seconds):
        assert seconds(model, quiet)[0] == pytest.approx(7.5)
        assert seconds(model, failing)[0] == pytest.approx(7.5 + 60 + 3)


@pytest.mark.parametrize("scenario", ["continual-pretraining", "low-resource", "skills"])
def test_engines_agree_over_whole_episodes(make_backend, problem, scenario):
    cost = costs.CostModel(failure_probability=0.2)
    runs = [
        rollout(
            RandomMixer(problem),
            make_backend(engine, scenario=scenario, num_envs=6, cost=cost),
            np.arange(6),
        )
        for engine in ("simpy", "twin")
    ]
    failures = 0
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.losses, other.losses)
        np.testing.assert_array_equal(one.failure, other.failure)
        np.testing.assert_allclose(one.seconds, other.seconds, rtol=1e-9)
        failures += one.failure.sum()
    assert failures > 0


@pytest.mark.parametrize("engine", ["simpy", "twin"])
def test_a_state_can_be_kept_and_put_back(make_backend, problem, engine):
    backend = make_backend(engine, scenario="low-resource", num_envs=3)
    agent = RandomMixer(problem)
    agent.begin(backend.spec)
    agent.tell(backend.reset(np.arange(3)))
    for _ in range(3):
        agent.tell(backend.spend(agent.ask()))
    kept = backend.get_state()
    plan = [agent.ask()]
    first = [backend.spend(plan[0])]
    for _ in range(4):
        agent.tell(first[-1])
        plan.append(agent.ask())
        first.append(backend.spend(plan[-1]))
    books = backend.ledger.to_json()
    for _ in range(2):  # twice: a kept state must not be used up
        backend.set_state(kept)
        assert backend.outcome.period[0] == 3
        again = [backend.spend(decision) for decision in plan]
        assert [o.to_json() for o in again] == [o.to_json() for o in first]
        assert backend.ledger.to_json() == books


def test_float32_is_the_twin_s_alone(make_backend):
    with pytest.raises(AllocgymError, match="dtype"):
        make_backend("simpy", dtype="float32")
    with pytest.raises(AllocgymError, match="dtype"):
        make_backend("twin", dtype="float16")


def test_a_batch_of_none_is_refused(make_backend):
    with pytest.raises(AllocgymError, match="num_envs"):
        make_backend(num_envs=0)


def test_the_true_law_is_not_shown_before_an_episode(make_backend):
    with pytest.raises(AllocgymError, match="reset"):
        _ = make_backend().state


def test_a_learning_rate_schedule_ends_with_nothing_left(make_backend, problem):
    backend = make_backend(num_envs=4)
    outcomes = rollout(catalogue.make("uniform", problem), backend, np.arange(4))
    assert (outcomes[-1].lr_left == 0).all()
    rates = np.array([o.lr for o in outcomes[:-1]])
    np.testing.assert_allclose(rates, backend.rates)
    left = np.array([o.lr_left for o in outcomes[:-1]])
    for t in range(10):
        np.testing.assert_allclose(left[t], rates[t:].mean(0))


def test_small_domains_stop_at_their_limit(make_backend, problem):
    backend = make_backend(scenario="low-resource", num_envs=6, epoch_cap=1.0)
    outcomes = rollout(catalogue.make("uniform", problem), backend, np.arange(6))
    inst = outcomes[-1].instance
    small = inst.limit < 3200
    small &= inst.present
    assert small.any()
    np.testing.assert_array_equal(outcomes[-1].seen[small], inst.limit[small])


def test_nothing_beats_the_best_static_split_on_the_control(make_backend, problem):
    pytest.importorskip("torch")
    seeds = np.arange(20)

    def final(agent):
        backend = make_backend(scenario="static-control", num_envs=20)
        rollout(agent, backend, seeds)
        return agent.memory.objective

    bound = final(catalogue.make("oracle-static", problem))
    rng = np.random.default_rng(0)
    rivals = [
        catalogue.make(name, problem)
        for name in ("uniform", "natural", "weights", "random", "odm", "skill-it")
    ]
    rivals += [OpenLoop(problem, rng.dirichlet(np.ones(8), (10, 20))) for _ in range(5)]
    for rival in rivals:
        assert (final(rival) >= bound - 2e-4).all(), rival.name
