"""What is told to a controller is looked at before it is written down."""

import dataclasses

import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.guards import Guards
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entries

SEEDS = np.array([0])


@pytest.fixture
def steer(problem, make_backend, tmp_path):
    """A controller with one period behind it, its back end and the outcome that is due."""
    opened = []

    def make(name="odm"):
        backend = make_backend(scenario="scratch", horizon=4)
        fallback = catalogue.make("uniform", problem)
        agent = catalogue.make(name, problem)
        made = Controller(agent, backend.spec, tmp_path / name, guards=Guards(fallback))
        opened.append(made)
        made.tell(backend.reset(SEEDS))
        made.tell(backend.spend(made.ask().decision))
        return made, backend, backend.spend(made.ask().decision)

    yield make
    for made in opened:
        made.close()


def with_(outcome, **fields):
    return dataclasses.replace(outcome, **fields)


MALFORMED = {
    "another type": (lambda o: o.to_json(), "MixingOutcome expected"),
    "a wrong shape": (lambda o: with_(o, losses=o.losses[:, :3]), "losses: float64 of shape"),
    "another dtype": (lambda o: with_(o, seen=o.seen.astype(float)), "seen: int64"),
    "a list": (lambda o: with_(o, losses=o.losses.tolist()), "losses: an array of numbers"),
    "texts": (lambda o: with_(o, losses=o.losses.astype(str)), "losses: an array of numbers"),
    "objects": (lambda o: with_(o, losses=o.losses.astype(object)), "given object"),
    "a number": (lambda o: with_(o, spent=5), "spent: an array of numbers"),
    "no array axis": (lambda o: with_(o, spent=np.array(5)), "spent: one environment"),
    "a batch of two": (lambda o: o.rows(np.array([0, 0])), "one environment expected"),
    "nothing inside": (lambda o: with_(o, instance=None), "instance: MixingInstance expected"),
    "other units": (lambda o: with_(o, units=o.units[:, ::-1].copy()), "units: those decided"),
    "a period left out": (lambda o: with_(o, period=o.period + 1), "period: 2 expected, given 3"),
    "a period again": (lambda o: with_(o, period=o.period - 1), "period: 2 expected, given 1"),
    "NaN": (lambda o: with_(o, losses=o.losses * np.nan), "losses: finite numbers expected"),
    "infinity": (lambda o: with_(o, heldout=o.heldout + np.inf), "heldout: finite numbers"),
    "a loss of 0": (lambda o: with_(o, losses=o.losses * 0), "memory's 'last'"),
    "overspent": (lambda o: with_(o, spent=o.spent + 1), "spent: at most the 320 units"),
    "earned": (lambda o: with_(o, spent=-o.spent), "spent: a finite number >= 0"),
    "NaN seconds": (lambda o: with_(o, seconds=o.seconds * np.nan), "seconds: a finite number"),
    "a NaN weight": (
        lambda o: with_(o, instance=with_(o.instance, weight=o.instance.weight * np.nan)),
        "instance.weight: numbers expected",
    ),
}


@pytest.mark.parametrize("what", MALFORMED)
def test_a_malformed_outcome_is_a_sentence_and_changes_nothing(steer, what):
    spoil, message = MALFORMED[what]
    made, _, good = steer()
    before, steady = made.journal.path.read_bytes(), made.ask()
    with pytest.raises(AllocgymError, match=message) as told:
        made.tell(spoil(good))
    assert "\n" not in str(told.value)
    assert made.journal.path.read_bytes() == before and made.ask() is steady
    made.tell(good)
    assert len(made.outcomes) == 3 and made.outcomes[-1] == good


def test_an_outcome_after_the_last_is_refused(steer):
    made, backend, outcome = steer()
    made.tell(outcome)
    while not outcome.done.all():
        outcome = backend.spend(made.ask().decision)
        made.tell(outcome)
    with pytest.raises(AllocgymError, match="over"):
        made.ask()
    with pytest.raises(AllocgymError, match="nothing is outstanding"):
        made.tell(outcome)


@pytest.mark.parametrize("name", ["odm", "skill-it", "natural", "uniform"])
def test_one_gap_silences_no_rule(steer, problem, name):
    made, backend, outcome = steer(name)
    made.tell(with_(outcome, losses=outcome.losses * np.nan, valid=np.array([False])))
    gap = made.ask()
    assert [event.kind for event in gap.events] == ["metric missing"]
    made.tell(backend.spend(gap.decision))
    assert made.ask().events == ()
    assert np.isnan(made.outcomes[2].losses).all()  # the journal says what was told
    taken = made.ask().decision.units
    made.close()
    again = Controller(
        catalogue.make(name, problem),
        backend.spec,
        made.journal.path.parent,
        guards=Guards(catalogue.make("uniform", problem)),
    )
    np.testing.assert_array_equal(again.ask().decision.units, taken)
    again.close()


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.id)
def test_what_the_back_ends_report_is_never_refused(entry, tmp_path):
    made = build(entry.id, entry.vector_backend)
    problem = made.problem
    with Controller(catalogue.make(entry.fallback, problem), made.spec, tmp_path) as steered:
        outcome = made.reset(SEEDS)
        steered.tell(outcome)
        for _ in range(12):
            if outcome.done.all():
                break
            outcome = made.spend(steered.ask().decision)
            steered.tell(outcome)
        assert len(steered.outcomes) == len(steered.decisions) + 1
        assert steered.outcomes[-1].to_json() == outcome.to_json()
