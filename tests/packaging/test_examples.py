"""Every example runs as its own page says, and stays as short as adding something is said to be."""

import ast
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.envs.core.builder import build

EXAMPLES = Path(__file__).parents[2] / "examples"


def lines(name, kind):
    """Lines of the first statement of a kind in an example, docstrings left out."""
    tree = ast.parse((EXAMPLES / name).read_text())
    node = next(n for n in tree.body if isinstance(n, kind))
    text = 0
    for inner in ast.walk(node):
        body = getattr(inner, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            if isinstance(getattr(body[0], "value", None), ast.Constant):
                text += body[0].end_lineno - body[0].lineno + 1
    return node.end_lineno - node.lineno + 1 - text


def test_a_policy_is_a_class_of_at_most_15_lines(monkeypatch):
    import numpy as np

    assert lines("own_policy.py", ast.ClassDef) <= 15
    monkeypatch.syspath_prepend(str(EXAMPLES))
    backend = build("data-mixing", "twin", num_envs=3)
    agent = catalogue.make("own_policy:MostWanted", backend.problem)
    assert rollout(agent, backend, np.arange(3))[-1].done.all()


def test_a_scenario_is_at_most_5_lines(monkeypatch):
    assert lines("own_scenario.py", ast.Assign) <= 5
    monkeypatch.syspath_prepend(str(EXAMPLES))
    mine = __import__("own_scenario").MINE
    env = gym.make("allocgym:allocgym/DataMixing-v0", scenario=mine)
    observation, _ = env.reset(seed=0)
    assert observation["present"].sum() == 4 and observation["context"][1] == 1


def test_a_problem_is_one_file_of_at_most_250_lines():
    assert len((EXAMPLES / "own_problem.py").read_text().splitlines()) <= 250


@pytest.mark.parametrize(
    "arguments",
    [["own_problem.py", "evaluate", "study-hours", "--seeds", "3"], ["own_scenario.py"]],
    ids=" ".join,
)
def test_an_example_runs_from_the_shell(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / arguments[0]), *arguments[1:]],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
