"""Schedulers of Ray Tune and Syne Tune drive the simulator; what they decide is carried out."""

import itertools
import random

import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.population import outside
from allocgym.envs.core.builder import make_backend
from allocgym.envs.population.problem import Population

pytestmark = pytest.mark.ray

SEEDS = np.arange(3)


def play(name, **arguments):
    problem = Population(n_max=8)
    agent = catalogue.make(name, problem)
    backend = make_backend(problem, "twin", num_envs=3, **arguments)
    return rollout(agent, backend, SEEDS), agent


@pytest.mark.parametrize("name", ["ray-tune-pbt", "ray-tune-asha", "syne-tune-pbt"])
def test_rules_hold_and_draws_are_its_own(name):
    pytest.importorskip("syne_tune" if name.startswith("syne") else "ray")
    random.seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    one, agent = play(name)
    other, _ = play(name)
    after = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert after == before
    assert one == other, "a function of the seed"
    inst = one[0].instance
    assert (sum(o.spent for o in one) == inst.total).all()
    for o in one:
        assert (o.knobs >= inst.low[:, None] * (1 - 1e-9)).all()
        assert (o.knobs <= inst.high[:, None] * (1 + 1e-9)).all()
    if "pbt" in name:
        assert any((o.donor != np.arange(8)).any() for o in one)
    assert np.isfinite(agent.memory.objective).all()


def test_copies_come_from_the_best_quarter():
    pytest.importorskip("ray")
    outcomes, _ = play("ray-tune-pbt")
    seen = 0
    for before, after in itertools.pairwise(outcomes):
        for row in range(len(SEEDS)):
            rank = before.scores[row].argsort().argsort()
            for i in np.flatnonzero(after.donor[row] != np.arange(8)):
                assert rank[after.donor[row, i]] < 2 <= 4 <= rank[i]
                seen += 1
    assert seen


def test_a_stopped_member_stays_stopped():
    pytest.importorskip("ray")
    outcomes, _ = play("ray-tune-asha")
    given = np.stack([b.used - a.used for a, b in itertools.pairwise(outcomes)])
    idle = given == 0
    assert idle.any(), "somebody is stopped"
    assert (idle[1:] | ~idle[:-1]).all()


def test_without_a_checkpoint_to_start_from_there_is_no_room():
    pytest.importorskip("syne_tune")
    from syne_tune.optimizer.scheduler import SchedulerDecision, TrialScheduler, TrialSuggestion

    class Picky(TrialScheduler):
        def suggest(self):
            return TrialSuggestion.start_suggestion({"learning_rate": 0.1})

        def on_trial_result(self, trial, result):
            stop = trial.trial_id == 1
            return SchedulerDecision.STOP if stop else SchedulerDecision.CONTINUE

    driver = outside.SyneDriver(Picky(0), [{"learning_rate": 0.2}] * 3)
    donors, configs, running = driver.report(np.ones(3), np.ones(3), np.ones(3, bool))
    assert donors.tolist() == [0, 1, 2] and running.tolist() == [True, False, True]
    assert configs[0] == {"learning_rate": 0.2}
