"""One contract for every back end: what `reset` and `spend` promise, and the books."""

import dataclasses

import numpy as np
import pytest

from allocgym.agents.core.agent import rollout
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.data_mixing.heuristics import Natural, RandomMixer, Uniform
from allocgym.envs.core import builder, registry
from allocgym.envs.core.contracts import Outcome, Shares
from allocgym.envs.core.errors import AllocgymError, OutOfBudgetError
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.envs.data_mixing.records import MixingOutcome

SIMULATORS = ["simpy", "twin"]


# Ray's is the real one with its steps made elsewhere; what it adds is held in test_mixing_parallel.py.
@pytest.fixture(params=[b for b in registry.entry("data-mixing").backends if b != "ray"])
def build(request, tiny_real, tmp_path_factory):
    """A function that builds the back end anew; all arguments but `num_envs` are fixed."""
    name = request.param
    problem = DataMixing(n_max=6)
    arguments = {"scenario": "continual-pretraining"}
    if name == "real":
        pytest.importorskip("torch")
        arguments = tiny_real
    elif name == "replay":
        folder = tmp_path_factory.mktemp("recorded")
        twin = builder.make_backend(problem, "twin", horizon=3)
        Deployment(twin, Uniform(problem), folder, seed=0).run().journal.close()
        arguments = {"folder": folder}

    def make(**more):
        return builder.make_backend(problem, name, **arguments, **more)

    make.backend = name
    return make


def uniform(backend):
    agent = Uniform(backend.problem)
    agent.begin(backend.spec)
    agent.tell(backend.outcome)
    return agent.ask()


def shape_of(outcome, batch, n):
    wide = {"ready", "losses", "heldout", "units", "seen"}
    kinds = {
        "spent": "i",
        "seconds": "f",
        "ready": "b",
        "valid": "b",
        "failure": "i",
        "done": "b",
        "losses": "f",
        "heldout": "f",
        "units": "i",
        "seen": "i",
        "period": "i",
        "lr": "f",
        "lr_left": "f",
    }
    for name, kind in kinds.items():
        value = getattr(outcome, name)
        assert value.shape == ((batch, n) if name in wide else (batch,)), name
        assert value.dtype.kind == kind, name
        assert value.dtype.itemsize == 8 or kind == "b", name
    for field in dataclasses.fields(outcome.instance):
        value = getattr(outcome.instance, field.name)
        shapes = {"graph": (batch, n, n)}
        rows = {"present", "prior", "weight", "source", "unique", "limit", "floor"}
        expected = (batch, n) if field.name in rows else (batch,)
        assert value.shape == shapes.get(field.name, expected), field.name
        if field.name not in ("unique", "epsilon"):
            assert np.isfinite(value).all(), field.name


def test_outcomes_have_the_promised_shapes(build):
    backend = build()
    first = backend.reset(np.array([0]))
    assert isinstance(first, MixingOutcome) and isinstance(first, Outcome)
    shape_of(first, 1, 6)
    shape_of(backend.spend(uniform(backend)), 1, 6)


def test_an_episode_ends_when_its_budget_is_spent(build):
    backend = build()
    outcome = backend.reset(np.array([0]))
    granted = int(backend.ledger.granted[0])
    assert granted == outcome.instance.budget[0] * outcome.instance.horizon[0]
    assert not outcome.done[0] and outcome.spent[0] == 0 and outcome.seconds[0] == 0
    for period in range(1, backend.spec.horizon + 1):
        decision = uniform(backend)
        outcome = backend.spend(decision)
        assert outcome.period[0] == period
        assert outcome.spent[0] == decision.units.sum()
        assert outcome.seconds[0] > 0
        np.testing.assert_array_equal(outcome.units, decision.units)
        np.testing.assert_array_equal(outcome.seen, decision.units * period)
        ledger = backend.ledger
        assert granted == ledger.spent[0] + ledger.wasted[0] + ledger.left[0]
        assert outcome.done[0] == (period == backend.spec.horizon)
    assert backend.ledger.left[0] == 0
    with pytest.raises(OutOfBudgetError, match="left"):
        backend.spend(decision)


def test_padding_is_finite_and_empty(build):
    backend = build()
    backend.reset(np.array([0]))
    outcome = backend.spend(uniform(backend))
    inst = outcome.instance
    assert np.isfinite(np.log(outcome.losses)).all() and np.isfinite(outcome.heldout).all()
    for row in (inst.prior, inst.weight, outcome.units, outcome.seen, inst.source, inst.floor):
        assert not row[~inst.present].any()
    assert (inst.limit > 0).all() and (inst.unique > 0).all()
    np.testing.assert_allclose([inst.prior.sum(), inst.weight.sum()], 1)


def test_spending_more_than_there_is_changes_nothing(build):
    backend = build()
    outcome = backend.reset(np.array([0]))
    books = backend.ledger.to_json()
    units = uniform(backend).units * (backend.spec.horizon + 1)
    with pytest.raises(OutOfBudgetError, match="units asked for"):
        backend.spend(Shares(units))
    assert backend.ledger.to_json() == books and backend.outcome is outcome


def test_a_decision_of_another_batch_is_refused(build):
    backend = build()
    backend.reset(np.array([0]))
    with pytest.raises(AllocgymError, match="rows expected"):
        backend.spend(Shares(np.repeat(uniform(backend).units, 2, 0)))


@pytest.mark.parametrize(
    "seeds", [np.array([0, 1]), np.array([0.5]), np.array([-1]), np.array(3), np.array([], int)]
)
def test_unusable_seeds_are_refused(build, seeds):
    with pytest.raises(AllocgymError, match="seeds"):
        build().reset(seeds)


def test_nothing_can_be_spent_before_reset(build):
    backend = build()
    with pytest.raises(AllocgymError, match="reset"):
        backend.spend(Shares(np.zeros((1, 6), np.int64)))
    with pytest.raises(AllocgymError, match="reset"):
        _ = backend.outcome


def test_the_same_decisions_bring_the_same_outcomes(build):
    def run():
        return [o.to_json() for o in rollout(Uniform(DataMixing(6)), build(), np.array([0]))]

    assert run() == run()


def test_a_second_episode_is_as_good_as_the_first(build):
    backend, fresh = build(), build()
    rollout(Uniform(backend.problem), backend, np.array([1]))
    again = rollout(Uniform(backend.problem), backend, np.array([0]))
    first = rollout(Uniform(fresh.problem), fresh, np.array([0]))
    assert [o.to_json() for o in again] == [o.to_json() for o in first]


def test_outcomes_kept_by_the_caller_do_not_change(build):
    backend = build()
    first = backend.reset(np.array([0]))
    copy = first.to_json()
    second = backend.spend(uniform(backend))
    assert first.to_json() == copy
    copy = second.to_json()
    backend.reset(np.array([0]))
    assert second.to_json() == copy


def test_closing_twice_is_fine(build):
    backend = build()
    backend.close()
    backend.close()


def test_checkpoints_are_refused_or_whole(build, tmp_path):
    backend = build()
    backend.reset(np.array([0]))
    if "restart" not in backend.spec.capabilities:
        with pytest.raises(AllocgymError, match="cannot be checkpointed"):
            backend.checkpoint(tmp_path / "x.ckpt")
        with pytest.raises(AllocgymError, match="cannot be restored"):
            backend.restore(tmp_path / "x.ckpt")
        return
    decision = uniform(backend)
    backend.spend(decision)
    backend.checkpoint(tmp_path / "x.ckpt")
    expected = backend.spend(decision)
    other = build()
    other.restore(tmp_path / "x.ckpt")
    assert other.spend(decision).to_json() == expected.to_json()
    assert other.ledger.to_json() == backend.ledger.to_json()


@pytest.mark.parametrize("engine", SIMULATORS)
def test_measurement_errors_are_the_same_under_every_policy(engine):
    problem = DataMixing()

    def errors(agent):
        backend = builder.make_backend(problem, engine, scenario="scratch", num_envs=4)
        outcomes = rollout(agent(problem), backend, np.arange(4))
        return np.array([o.losses - o.heldout for o in outcomes]), outcomes[-1].heldout

    one, final = errors(Natural)
    other, elsewhere = errors(RandomMixer)
    np.testing.assert_allclose(one, other, atol=1e-12)
    assert np.abs(one).max() > 1e-4 and np.abs(final - elsewhere).max() > 1e-3


@pytest.mark.parametrize("engine", SIMULATORS)
def test_a_partial_reset_leaves_the_others_alone(engine):
    problem = DataMixing()
    backend = builder.make_backend(problem, engine, scenario="scratch", num_envs=3)
    backend.reset(np.arange(3))
    decision = uniform(backend)
    units = decision.units.copy()
    before = backend.spend(decision)
    copy = before.to_json()
    after = backend.reset(np.array([9, 9, 9]), np.array([False, True, False]))
    assert before.to_json() == copy, "an outcome the caller keeps has changed"
    np.testing.assert_array_equal(decision.units, units)
    others = np.array([0, 2])
    assert after.rows(others).to_json() == before.rows(others).to_json()
    fresh = builder.make_backend(problem, engine, scenario="scratch", num_envs=1)
    assert after.rows(np.array([1])).to_json() == fresh.reset(np.array([9])).to_json()
    np.testing.assert_array_equal(backend.ledger.spent, [320, 0, 320])


@pytest.mark.parametrize("engine", SIMULATORS)
def test_a_reset_of_nobody_changes_nothing(engine):
    backend = builder.make_backend(DataMixing(), engine, num_envs=2)
    before = backend.reset(np.arange(2)).to_json()
    assert backend.reset(np.arange(2), np.zeros(2, bool)).to_json() == before
