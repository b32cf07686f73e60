"""Limits hold in every decision, and it is said what was done."""

import dataclasses

import numpy as np
import pytest

from allocgym.agents.core import catalogue, pace
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Event, Guards
from allocgym.agents.data_mixing.heuristics import Natural, RandomMixer, Static, Uniform
from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entries

SEEDS = np.array([0])


class Faulty(Natural):
    """Fails where and when it is told to."""

    name = "faulty"

    def __init__(self, problem, where, periods=(1,), answer=None):
        super().__init__(problem)
        self.where, self.periods, self.answer = where, periods, answer

    def begin(self, spec, seed=0):
        if self.where == "begin":
            raise OSError("no driver")
        super().begin(spec, seed)

    def _heard(self):
        if self.where == "tell" and int(self.outcome.period[0]) in self.periods:
            raise ZeroDivisionError("by zero")

    def ask(self):
        if self.where == "ask" and int(self.outcome.period[0]) in self.periods:
            if self.answer is None:
                raise RuntimeError("CUDA is gone")
            return self.answer
        return super().ask()


@pytest.fixture
def deploy(problem, make_backend, tmp_path):
    opened = []

    def make(agent, folder="run", scenario="scratch", **guards):
        backend = make_backend(scenario=scenario, horizon=6)
        live = Deployment(backend, agent, tmp_path / folder, 0, Guards(**guards))
        opened.append(live)
        return live

    yield make
    for live in opened:
        live.close()


@pytest.mark.parametrize(
    ("where", "periods", "expected"),
    [("begin", (), range(6)), ("tell", (0, 2), (0, 2)), ("ask", (1, 4), (1, 4))],
)
def test_the_fallback_acts_where_an_agent_fails_and_only_there(
    deploy, problem, where, periods, expected
):
    made = deploy(Faulty(problem, where, periods), fallback=Uniform(problem)).run()
    events = list(made.history.events())
    assert [(e.period, e.kind) for e in events] == [(p, "agent failed") for p in expected]
    assert all("uniform decided" in e.detail for e in events)
    assert made.history.counts() == made.counts == {"agent failed": len(events)}
    even = np.array([80, 80, 80, 80, 0, 0, 0, 0])
    for keyed in made.decisions:
        assert (keyed.decision.units[0] == even).all() == (keyed.period in expected)


@pytest.mark.parametrize("where", ["begin", "tell", "ask"])
def test_without_a_fallback_a_failure_is_a_sentence_and_loses_nothing(deploy, problem, where):
    with pytest.raises(AllocgymError, match=r"'faulty'.*and there is no fallback"):
        live = deploy(Faulty(problem, where))
        try:
            live.run()
        finally:
            live.close()
    made = deploy(Natural(problem), folder="run").run()
    steady = deploy(Natural(problem), folder="steady").run()
    assert made.outcomes[-1] == steady.outcomes[-1]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "shares",
        np.full((1, 8), 40),
        Shares(np.full((1, 8), 40.0)),
        Shares([[320, 0, 0, 0, 0, 0, 0, 0]]),
        Shares(np.array([[400, -80, 0, 0, 0, 0, 0, 0]])),
        Shares(np.full((2, 8), 40)),
        Shares(np.array([320])),
    ],
    ids=lambda a: type(a).__name__,
)
def test_a_decision_of_the_wrong_kind_is_caught(deploy, problem, answer):
    agent = Faulty(problem, "ask", (2,), answer)
    made = deploy(agent, fallback=Uniform(problem)).run()
    assert [(e.period, e.kind) for e in made.history.events()] == [(2, "agent failed")]
    assert made.outcomes[-1].done.all()


def test_a_fallback_that_fails_too_is_told(deploy, problem):
    agent, spare = Faulty(problem, "ask"), Faulty(problem, "tell")
    with pytest.raises(AllocgymError, match=r"fallback 'faulty' failed too \(by zero\), after"):
        deploy(agent, fallback=spare).run()


class Clock:
    """Says how long each call took."""

    def __init__(self, seconds):
        self.seconds, self.now, self.calls = list(seconds), 0.0, 0

    def __call__(self):
        if self.calls % 2:
            self.now += self.seconds[self.calls // 2]
        self.calls += 1
        return self.now


def test_an_agent_that_thinks_too_long_is_not_heeded(deploy, problem):
    clock = Clock([0.5, 1.5, 1.0, 3.0, 0.1, 0.2])
    agent = Static(problem, np.array([0.7, 0.1, 0.1, 0.1]))
    made = deploy(agent, fallback=Uniform(problem), max_think=1.0, clock=clock).run()
    events = list(made.history.events())
    assert [(e.period, e.kind) for e in events] == [(1, "agent too slow"), (3, "agent too slow")]
    assert "took 3 s, 1 s allowed: uniform decided" in events[1].detail


def test_who_was_asked_then_is_asked_again_on_resume(problem, make_backend, tmp_path):
    """The fall-back draws numbers: it must have drawn as many after a restart."""

    def steer(folder, clock):
        guards = Guards(RandomMixer(problem), max_think=1.0, clock=clock)
        return Controller(Natural(problem), make_backend().spec, tmp_path / folder, 0, guards)

    slow = [2.0, 0.0, 2.0, 2.0, 0.0, 2.0, 2.0]
    backend, other = make_backend(), make_backend()
    steady = steer("steady", Clock(slow))
    steady.tell(backend.reset(SEEDS))
    broken = steer("broken", Clock(slow))
    broken.tell(other.reset(SEEDS))
    for period in range(7):
        expected, keyed = steady.ask(), broken.ask()
        np.testing.assert_array_equal(keyed.decision.units, expected.decision.units)
        steady.tell(backend.spend(expected.decision))
        broken.tell(other.spend(keyed.decision))
        broken.close()
        broken = steer("broken", Clock(slow[period + 1 :]))
    broken.close()
    steady.close()


@pytest.mark.parametrize("most", [0.02, 0.05, 0.3])
@pytest.mark.parametrize("scenario", ["scratch", "low-resource", "skills"])
def test_a_change_is_never_larger_than_allowed_or_it_is_said_what_forced_it(
    problem, make_backend, tmp_path, scenario, most
):
    backend = make_backend(scenario=scenario)
    live = Deployment(backend, RandomMixer(problem), tmp_path, 3, Guards(max_change=most))
    made = live.run()
    before = made.outcomes[0].instance.prior
    for keyed, outcome in zip(made.decisions, made.outcomes, strict=False):
        change = np.abs(keyed.decision.fractions - before).max()
        kinds = [event.kind for event in keyed.events]
        if change > most + 1e-9:
            assert kinds == ["limit forced"]
            assert f"limited to {change:.4f}, more than the {most:g}" in keyed.events[0].detail
            held = closest(outcome, before[0])
            assert change <= held + 1 / 320 + 1e-9
        else:
            assert kinds in ([], ["change limited"])
        before = keyed.decision.fractions
    live.close()


def closest(outcome, before):
    """The smallest change that floors and limits leave, in exact fractions."""
    inst = outcome.instance
    budget = inst.budget[0]
    left = (inst.limit - outcome.seen)[0] * inst.present[0]
    low, high = np.minimum(inst.floor[0], left) / budget, np.minimum(left / budget, 1)
    below, enough = 0.0, 1.0
    for _ in range(60):
        reach = (below + enough) / 2
        a, b = np.maximum(before - reach, low), np.minimum(before + reach, high)
        fits = (a <= b + 1e-12).all() and a.sum() <= 1 + 1e-12 and b.sum() >= 1 - 1e-12
        below, enough = (below, reach) if fits else (reach, enough)
    return enough


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.id)
def test_a_largest_change_works_or_is_refused_before_anything_runs(entry, tmp_path):
    made = build(entry.id, entry.vector_backend)
    problem = made.problem
    agent = catalogue.make(entry.fallback, problem)
    if entry.id not in ("data-mixing", "prb-slicing"):
        with pytest.raises(AllocgymError, match=r"max_change: .*leave it out"):
            Controller(agent, made.spec, tmp_path, guards=Guards(max_change=0.1))
        assert not (tmp_path / "journal.jsonl").exists()
        return
    with Controller(agent, made.spec, tmp_path, guards=Guards(max_change=0.1)) as steered:
        steered.tell(made.reset(SEEDS))
        for _ in range(5):
            steered.tell(made.spend(steered.ask().decision))
        split = [pace.start(problem, problem.begin(steered.outcomes[0]))[0]]
        split += [k.decision.fractions[0] for k in steered.decisions]
        moved = np.abs(np.diff(split, axis=0)).max(1)
        forced = [any(e.kind == "limit forced" for e in k.events) for k in steered.decisions]
        assert ((moved <= 0.1 + 1e-9) | forced).all()


@pytest.mark.parametrize("most", [0, 1, 319, 320, 500, 960, 1919])
def test_no_run_costs_more_than_it_may(deploy, problem, most):
    live = deploy(Natural(problem), max_cost=most)
    made = live.run()
    assert made.spent == live.backend.ledger.spent[0] == 320 * (most // 320) <= most
    assert f"max_cost {most} reached" in live.stopped
    assert not made.waiting
    with pytest.raises(AllocgymError, match="max_cost"):
        made.ask()


@pytest.mark.parametrize("name", ["max_change", "max_seconds", "max_cost", "max_think"])
@pytest.mark.parametrize("value", [np.nan, -1, -0.5])
def test_limits_are_numbers_that_mean_something(problem, name, value):
    with pytest.raises(AllocgymError, match=f"{name}: a number"):
        Guards(Uniform(problem), **{name: value})


def test_a_limit_on_thinking_needs_somebody_else_to_act():
    with pytest.raises(AllocgymError, match="max_think: a fallback"):
        Guards(max_think=1.0)


def test_events_are_values_and_words(deploy, problem):
    event = Event(3, "agent failed", "odm failed (x): uniform decided")
    assert dataclasses.astuple(event) == (3, "agent failed", str(event))
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.period = 4
    made = deploy(Faulty(problem, "ask"), fallback=Uniform(problem)).run()
    (entry,) = [e for e in made.journal.entries if e["kind"] == "decision" and e["interventions"]]
    assert entry["events"] == ["agent failed"]
    assert entry["interventions"] == ["faulty failed (CUDA is gone): uniform decided"]
    assert made.decisions[1].interventions == tuple(entry["interventions"])
