"""Every problem answers the command line: suites exist, names build, the list prints."""

import pytest
from typer.testing import CliRunner

from allocgym.benchmarks.commands import app
from allocgym.benchmarks.core import main
from allocgym.benchmarks.core.front import front, fronts
from allocgym.envs.core import builder, registry
from allocgym.envs.core.errors import AllocgymError


def test_every_registered_problem_has_a_front():
    assert set(registry.problems()) >= set(fronts())
    assert "data-mixing" in fronts()


@pytest.mark.parametrize("name", fronts())
def test_a_front_is_whole(name):
    desk = front(name)
    problem = builder.make_problem(name)
    assert desk.problem == name
    assert desk.scenario in desk.scenarios()
    assert desk.fallback in desk.agents()
    assert desk.trainers
    for suite in desk.suites.values():
        assert callable(registry.load(suite.target))
    for agent in desk.agents():
        assert desk.make_agent(agent, problem).problem is problem
    with pytest.raises(AllocgymError):
        desk.make_agent("no such agent", problem)


def test_the_list_names_every_problem():
    text = CliRunner().invoke(app, ["list"]).output
    assert all(name in text for name in fronts())


def test_an_unknown_problem_is_named():
    with pytest.raises(AllocgymError, match=r"data-mixng.*Did you mean 'data-mixing'"):
        front("data-mixng")


def test_seeds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        main.run("data_mixing", front("data-mixing").suites, ["--suite", "speed", "--seeds", "0"])
    assert "--seeds" in capsys.readouterr().err
