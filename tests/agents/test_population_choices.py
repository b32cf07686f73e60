"""Rules with a result that can be worked out: extrapolation, early signals, transfer, difficulty."""

import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.curve_budget import signal as signals
from allocgym.agents.curve_budget.schedule import Episode
from allocgym.agents.population import difficulty, tasks
from allocgym.agents.population.heuristics import uba
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.population.transfer import SCENARIOS, Row

CURVES = {
    # Ends at 1 + 1 / 10 = 1.1, at 1.5 + 0.1, at 0.5 + 0.1.
    0: lambda u: 1 + u**-0.5,
    1: lambda u: 1.5 + u**-0.5,
    2: lambda u: 0.5 + u**-0.5,
}


def drive(rule, curves, limit=100):
    """Give a scheduler what it asks for; return the jobs."""
    episode = Episode(len(curves), limit)
    used = np.zeros(len(curves), int)
    jobs = []
    for index, until in rule(make_problem("curve-budget")).jobs(episode):
        used[index] = max(used[index], until)
        scores = np.array([curves[i](u) if u else np.inf for i, u in enumerate(used)])
        episode.report(used, scores)
        jobs.append((index, until))
    return jobs, episode


def test_a_power_law_is_found_again():
    units = np.arange(2, 20, 2)
    a, b, c = signals.power_law(units, 3 * units**-0.5 + 0.7)
    assert (a, b, c) == (pytest.approx(3), pytest.approx(0.5), pytest.approx(0.7))
    a, _, c = signals.power_law([1, 2, 3], [0.5, 0.6, 0.7])
    assert a == 0 and c == pytest.approx(0.6), "a curve that rises has no power law: its mean"


def test_a_settled_curve_that_cannot_win_is_given_up():
    jobs, _ = drive(signals.Extrapolation, CURVES)
    spent = {i: max(u for j, u in jobs if j == i) for i in CURVES}
    # The first one has no rival and runs to its end; the second settles at once (4 reports for the
    # first fit, one more for its neighbour) above the first one's end; the third settles below it.
    assert spent == {0: 100, 1: 10, 2: 100}


def test_slow_starters_are_kept():
    # After 5 and 10 units: falls of 1, 2 and 0.5; losses of 3, 1 and 4.
    curves = [
        lambda u: 4.0 if u <= 5 else 3.0,
        lambda u: 3.0 if u <= 5 else 1.0,
        lambda u: 4.5 if u <= 5 else 4.0,
    ]
    jobs, _ = drive(signals.EarlySignals, curves)
    assert jobs[:6] == [(0, 5), (0, 10), (1, 5), (1, 10), (2, 5), (2, 10)]
    assert jobs[6:] == [(2, 100)], "the smallest fall and the highest loss"


def test_the_next_task_is_the_one_that_would_raise_the_mean_most():
    # Task 1 serves (0, 1, 2) with 0.5, 1, 0.5 against a best of 0, 0, 0.9: gains 0.5 + 1 + 0.
    # Task 2 serves 0, 0.6, 1.1: gains 0 + 0.6 + 0.2. Task 0 is trained already.
    best = np.array([0.0, 0.0, 0.9])
    assert tasks.pick(np.array([9.0, 1.0, 1.1]), best, 0.5, [0]) == 1
    assert tasks.equidistant(10, 2) == [2, 7]
    assert tasks.middle(9) == 4
    rng = np.random.default_rng(0)
    assert tasks.bisection([4], np.zeros(1), np.zeros(9), 0.1, rng) == 0
    assert tasks.mbtl([], np.zeros(0), np.zeros(9), 0.1, rng) == 4


def test_nobody_beats_even_spacing_where_all_tasks_are_worth_the_same():
    row = SCENARIOS["control"]
    even = tasks.play("equidistant", row.sample(0), row.slope, row.budget)[1][-1]
    # 60 tasks in 8 stretches of 7.5: distances 0 to 3 and 4.
    for rule in ("mbtl", "bisection", "random", "oracle"):
        chosen, values = tasks.play(rule, row.sample(0), row.slope, row.budget, 1)
        assert len(set(chosen)) == row.budget
        assert values[-1] <= even + 1e-9 and (np.diff(values) >= 0).all()
    with pytest.raises(AllocgymError, match="budget: 2 to 60"):
        Row(budget=1)


def test_tasks_are_grouped_and_extrapolated_by_group():
    compute = np.array([1.0, 4.0, 16.0, 64.0])
    easy, hard = (difficulty.Growth(0.25, a, 0.5, 0.05) for a in (0.5, 4.0))
    flat = np.full(4, 0.25)
    scores = np.stack([easy(compute)] * 3 + [hard(compute)] * 3 + [flat] * 2)
    labels = difficulty.clusters(scores, 0.2)
    assert len(set(labels)) == 3 and (labels >= 0).all()
    assert len(set(labels[:3])) == len(set(labels[3:6])) == len(set(labels[6:])) == 1
    assert difficulty.clusters(np.vstack([scores, np.full(4, 0.9)]), 0.2)[-1] == -1
    found = difficulty.fit_growth(compute, hard(compute), 0.25)
    assert found(np.array([256.0])) == pytest.approx(hard(np.array([256.0])), abs=1e-4)
    end = (easy(256.0) + hard(256.0)) / 2
    got = difficulty.predict(scores[:6], compute, 256.0, np.full(6, 0.25), 0.2)
    assert got == pytest.approx(end, abs=1e-4), "the part is the whole"
    got = difficulty.predict(scores, compute, 256.0, np.full(8, 0.25), 0.2)
    assert scores.mean(0)[-1] < got < end, "the part, taken down to the whole"
    with pytest.raises(AllocgymError, match="no group of tasks grows"):
        difficulty.predict(np.stack([flat] * 3), compute, 256.0, np.full(3, 0.25), 0.2)


def test_the_quartic_keeps_its_ends():
    part = np.array([0.2, 0.4, 0.6, 0.8])
    p = difficulty.whole_from_part(part, part + part * (1 - part) * (0.1 - 0.2 * part))
    assert p == pytest.approx([0.1, -0.2, 0.0], abs=1e-6)


def test_the_budget_aware_schedule_has_its_limits():
    x = np.linspace(0, 1, 11)
    assert uba(x, 2.0) == pytest.approx((1 + np.cos(np.pi * x)) / 2)
    assert uba(x, 1e-6)[:-1] == pytest.approx(np.ones(10), abs=1e-3)
    assert uba(x, 1.0)[[0, 5, -1]] == pytest.approx([1, 2 / 3, 0])


@pytest.mark.parametrize("name", catalogue.names("curve-budget"))
def test_every_rule_of_curves_spends_the_budget(name):
    problem = make_problem("curve-budget")
    agent = catalogue.make(name, problem)
    backend = make_backend(problem, "replay", num_envs=2, full=2)
    last = rollout(agent, backend, np.arange(2))[-1]
    assert (last.left == 0).all() and np.isfinite(agent.memory.objective).all()


def test_the_shipped_controller_runs_on_any_population():
    for n_max in (8, 4):
        problem = make_problem("population", n_max=n_max)
        agent = catalogue.make("learned", problem)
        backend = make_backend(problem, "twin", num_envs=2, members=n_max, horizon=[4, 4])
        assert rollout(agent, backend, np.arange(2))[-1].done.all()
        assert agent.name == "learned"
