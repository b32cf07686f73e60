import json

import numpy as np
import pytest

from allocgym.agents.core.agent import PolicyAgent
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Guards
from allocgym.agents.data_mixing.heuristics import ODM, Natural, RandomMixer, Static, Uniform
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import Journal

SEEDS = np.array([0])


class Stopped(Exception):
    pass


@pytest.fixture
def opened(monkeypatch):
    """Every journal opened in the test, closed after it."""
    journals = []
    begin = Journal.__init__

    def remember(self, path):
        begin(self, path)
        journals.append(self)

    monkeypatch.setattr(Journal, "__init__", remember)
    yield journals
    for journal in journals:
        journal.close()


@pytest.fixture
def steer(problem, opened, make_backend, tmp_path):
    spec = make_backend().spec

    def make(agent=None, folder="run", **arguments):
        return Controller(agent or ODM(problem), spec, tmp_path / folder, **arguments)

    return make


@pytest.fixture
def deploy(problem, opened, make_backend, tmp_path):
    def make(agent=None, folder="run", backend="twin", progress=None, **arguments):
        made = make_backend(backend)
        return Deployment(
            made, agent or ODM(problem), tmp_path / folder, 0, progress=progress, **arguments
        )

    return make


class Stub:
    """A policy that returns what it is told to."""

    def __init__(self, value):
        self.value = value

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        if isinstance(self.value, Exception):
            raise self.value
        return np.full(observation["present"].shape, self.value, np.float32), state


def test_asking_twice_is_answered_once(steer, make_backend):
    controller = steer()
    with pytest.raises(AllocgymError, match="tell"):
        controller.ask()
    controller.tell(make_backend().reset(SEEDS))
    assert controller.ask() is controller.ask()
    assert [e["kind"] for e in controller.journal.entries] == ["outcome", "decision"]


def test_telling_twice_is_an_error(steer, make_backend):
    controller = steer()
    outcome = make_backend().reset(SEEDS)
    controller.tell(outcome)
    with pytest.raises(AllocgymError, match="ask"):
        controller.tell(outcome)
    assert len(controller.journal.entries) == 1


@pytest.mark.parametrize("agent", [ODM, RandomMixer])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_restart_between_ask_and_tell_changes_nothing(
    steer, problem, make_backend, agent, waiting
):
    backend, other = make_backend(), make_backend()
    one, steady = steer(agent(problem), "broken"), steer(agent(problem), "steady")
    one.tell(backend.reset(SEEDS))
    steady.tell(other.reset(SEEDS))
    for _ in range(10):
        expected = steady.ask()
        if waiting:
            first = one.ask()
        one.journal.close()
        one = steer(agent(problem), "broken")
        assert one.waiting == waiting
        keyed = one.ask()
        if waiting:
            assert keyed.key == first.key and keyed.period == first.period
        assert keyed.key == expected.key
        np.testing.assert_array_equal(keyed.decision.units, expected.decision.units)
        one.tell(backend.spend(keyed.decision))
        steady.tell(other.spend(expected.decision))
    assert one.journal.entries == steady.journal.entries


def test_a_foreign_entry_is_an_error(steer, make_backend):
    controller = steer()
    controller.tell(make_backend().reset(SEEDS))
    controller.journal.append({"kind": "surprise"})
    controller.close()
    with pytest.raises(CorruptFileError, match="entry 2"):
        steer()


@pytest.mark.parametrize(
    "value", [np.nan, np.inf, FloatingPointError("x"), RuntimeError("CUDA is gone")], ids=repr
)
def test_the_fallback_decides_where_the_policy_cannot(deploy, problem, value):
    agent = PolicyAgent(problem, Stub(value))
    live = deploy(agent, guards=Guards(fallback=Natural(problem)))
    controller = live.run()
    assert controller.outcomes[-1].done.all()
    for keyed in controller.decisions:
        assert len(keyed.interventions) == 1 and "natural decided" in keyed.interventions[0]
    journalled = [e for e in controller.journal.entries if e["kind"] == "decision"]
    assert all("natural decided" in e["interventions"][0] for e in journalled)


def test_without_a_fallback_nan_is_an_error(deploy, problem):
    with pytest.raises(AllocgymError, match="NaN"):
        deploy(PolicyAgent(problem, Stub(np.nan))).run()


def test_a_missing_metric_is_left_to_the_fallback(problem, make_backend):
    backend = make_backend()
    outcome = backend.reset(SEEDS)
    outcome.valid = np.array([False])
    agent, fallback = ODM(problem), Uniform(problem)
    for one in (agent, fallback):
        one.begin(backend.spec)
        one.tell(outcome)
    verdict = Guards(fallback).apply(agent, outcome, None)
    np.testing.assert_array_equal(verdict.decision.units, fallback.ask().units)
    assert "metric missing" in verdict.interventions[0]


def test_shares_change_no_faster_than_allowed(deploy, problem):
    jumps = RandomMixer(problem)
    controller = deploy(jumps, guards=Guards(max_change=0.05)).run()
    prior = controller.outcomes[0].instance.prior[0]
    split = np.array([prior, *(k.decision.fractions[0] for k in controller.decisions)])
    assert np.abs(np.diff(split, axis=0)).max() <= 0.05 + 1e-12
    limited = [k for k in controller.decisions if k.interventions]
    assert len(limited) == controller.counts["change limited"] > 0
    entries = [e for e in controller.journal.entries if e["kind"] == "decision"]
    assert sum(e["proposed"] is not None for e in entries) == len(limited)


@pytest.mark.parametrize("value", [0, -0.1, 1.5])
def test_a_change_outside_zero_to_one_is_refused(value):
    with pytest.raises(AllocgymError, match="max_change"):
        Guards(max_change=value)


def test_a_run_stops_when_its_seconds_or_units_are_spent(deploy):
    whole = deploy(folder="whole").run()
    seconds = [float(o.seconds[0]) for o in whole.outcomes]
    live = deploy(folder="time", guards=Guards(max_seconds=sum(seconds[:4])))
    assert len(live.run().decisions) == 3
    assert "max_seconds" in live.stopped
    live = deploy(folder="cost", guards=Guards(max_cost=640))
    assert len(live.run().decisions) == 2
    assert "max_cost" in live.stopped
    books = json.loads((live.folder / "ledger.json").read_text())
    assert books["spent"] == [640] and books["stopped"] == live.stopped


def test_in_shadow_mode_the_incumbent_acts_and_the_agent_is_logged(deploy, problem):
    split = Static(problem, np.array([0.9, 0.1]))
    controller = deploy(split, incumbent=Uniform(problem)).run()
    plain = deploy(Uniform(problem), "plain").run()
    for shadow, alone in zip(controller.decisions, plain.decisions, strict=True):
        np.testing.assert_array_equal(shadow.decision.units, alone.decision.units)
        assert "shadow" in shadow.interventions[-1]
    entries = [e for e in controller.journal.entries if e["kind"] == "decision"]
    proposed = [e["proposed"]["units"]["data"][0] for e in entries]
    assert proposed[0] != controller.decisions[0].decision.units[0].tolist()
    assert all(sum(p) == 320 for p in proposed)


@pytest.mark.parametrize("backend", ["simpy", "twin"])
@pytest.mark.parametrize("stop", [1, 5, 9])
def test_a_deployment_stopped_halfway_ends_as_if_nothing_had_happened(deploy, backend, stop):
    def progress(period, *_):
        if period == stop:
            raise Stopped

    steady = deploy(folder="steady", backend=backend)
    expected = steady.run()
    broken = deploy(folder="broken", backend=backend, progress=progress)
    with pytest.raises(Stopped):
        broken.run()
    broken.controller.journal.close()
    again = deploy(folder="broken", backend=backend)
    assert again.run().journal.entries == expected.journal.entries
    one, other = ((d.folder / "ledger.json").read_text() for d in (again, steady))
    assert one == other


def test_a_finished_run_taken_up_again_spends_nothing_more(deploy):
    first = deploy()
    entries = list(first.run().journal.entries)
    first.controller.journal.close()
    again = deploy()
    assert again.run().journal.entries == entries
    assert again.backend.ledger.spent[0] == 3200


def test_a_batch_cannot_be_deployed(problem, make_backend, tmp_path):
    with pytest.raises(AllocgymError, match="one environment"):
        Deployment(make_backend(num_envs=2), Uniform(problem), tmp_path)
