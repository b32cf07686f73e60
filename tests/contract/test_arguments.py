"""Whatever is given by keyword or on the command line: it works, or one sentence says why not."""

import dataclasses
import inspect
import sys
import time

import cases
import numpy as np
import pytest
from cases import over
from typer.testing import CliRunner

from allocgym.benchmarks.commands import app
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.registry import entries, load
from allocgym.simulators.core.public_data import DataMissingError

HOSTILE = (
    float("nan"),
    float("inf"),
    -float("inf"),
    -1,
    0,
    1e-300,
    1e18,
    10**18,
    -(10**18),
    2.5,
    True,
    None,
    "",
    "no such thing",
    "x" * 10_000,
    [],
    [1],
    [float("nan"), 1.0],
    [3, 1],
    [[]],
    {},
    {"a": 1},
)
SIMULATED = [c for c in cases.firsts() if c.kind.batched]


def keywords(case):
    """Every keyword that can be given to a case, wherever it belongs."""
    problem = inspect.signature(load(case.entry.problem)).parameters
    backend = inspect.signature(case.kind).parameters
    base = case.kind.choose(case.scenario, {})
    fields = [f.name for f in dataclasses.fields(base)] if dataclasses.is_dataclass(base) else []
    taken = {"self", "problem", "scenario", "num_envs", "name", "progress"}
    return [k for k in dict.fromkeys([*problem, *fields, *backend]) if k not in taken]


@over(SIMULATED)
def test_hostile_values_are_one_sentence_or_work(case):
    """Each keyword x each hostile value: built, stepped and finite, or an `AllocgymError` of one line."""
    tried = refused = 0
    for keyword in keywords(case):
        for value in HOSTILE:
            tried += 1
            begun = time.process_time()
            try:
                backend = build(case.entry.id, case.backend, case.scenario, 1, **{keyword: value})
                outcome = backend.reset(np.array([0]))
                memory = backend.problem.begin(outcome)
                observed = backend.problem.encode(memory)
                for part in observed.values() if isinstance(observed, dict) else [observed]:
                    assert np.isfinite(part).all(), (keyword, value)
                assert (backend.ledger.granted > 0).all(), (keyword, value)
            except DataMissingError as error:
                pytest.skip(str(error))
            except (AllocgymError, ImportError) as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 12_000, (keyword, value)
            # Not a measurement of speed: a bound on what one value may make the machine do.
            assert time.process_time() - begun < 20, (keyword, value)
    assert tried == len(keywords(case)) * len(HOSTILE) and refused


@over(cases.firsts())
def test_hostile_fields_of_a_scenario_are_told_before_anything_is_built(case):
    base = case.kind.choose(case.scenario, {})
    for field in dataclasses.fields(base):
        for value in HOSTILE:
            try:
                case.kind.choose(case.scenario, {field.name: value})
            except AllocgymError as error:
                assert "\n" not in str(error), (field.name, value)


@over(SIMULATED)
@pytest.mark.parametrize("value", [0, -1, 1.5, 10**9, "two", None, float("nan")])
def test_a_batch_of_nobody_or_of_everybody_is_refused(case, value):
    with pytest.raises(AllocgymError, match="num_envs"):
        build(case.entry.id, case.backend, case.scenario, value)


@over(SIMULATED)
def test_every_documented_argument_can_be_reached(case):
    """What a constructor takes, `gym.make` takes: the default itself is accepted by keyword."""
    for target in (load(case.entry.problem), case.kind):
        for name, parameter in inspect.signature(target).parameters.items():
            if name in ("problem", "scenario", "num_envs", "engine"):
                continue
            assert parameter.default is not inspect.Parameter.empty, (target, name)
            if parameter.default is not None:
                case.env(**{name: parameter.default})


def test_a_misspelt_argument_is_told_where_the_right_one_belongs():
    with pytest.raises(AllocgymError, match="Did you mean 'horizon', of the scenario"):
        build("data-mixing", "twin", horizont=3)
    with pytest.raises(AllocgymError, match="Did you mean 'kappa', of the problem"):
        build("data-mixing", "twin", kapa=3.0)
    with pytest.raises(AllocgymError, match="Did you mean 'dtype', of the back end"):
        build("data-mixing", "twin", dtyp="float32")


COMMANDS = [
    ["list", "x"],
    ["train"],
    ["train", "nope"],
    ["train", "{id}", "--trainer", "nope"],
    ["train", "{id}", "--set", "nope=1"],
    ["train", "{id}", "--set", "nope"],
    ["train", "{id}", "--scenario", "nope"],
    ["train", "{id}", "--out", "."],
    ["train", "{id}", "--out", "/proc/none/a.zip"],
    ["train", "{id}", "--iterations", "0"],
    ["train", "{id}", "--engine", "nope"],
    ["train", "{id}", "--runners", "2"],
    ["evaluate", "{id}", "--agents", "nope"],
    ["evaluate", "{id}", "--agents", "nope.zip"],
    ["evaluate", "{id}", "--agents", "no_such_module:Agent"],
    ["evaluate", "{id}", "--agents", "json:JSONDecoder"],
    ["evaluate", "{id}", "--seeds", "1"],
    ["evaluate", "{id}", "--scenario", "nope"],
    ["evaluate", "{id}", "--set", "seeds=nope"],
    ["deploy", "{id}", "--backend", "nope"],
    ["deploy", "{id}", "--agent", "nope", "--folder", "new"],
    ["deploy", "{id}", "--scenario", "nope", "--folder", "new"],
    ["deploy", "{id}", "--folder", "file"],
    ["deploy", "{id}", "--runs", "3", "--folder", "new"],
    ["deploy", "{id}", "--engine", "nope", "--folder", "new"],
    ["deploy", "{id}", "--max-change", "nan", "--folder", "new"],
    ["deploy", "{id}", "--max-change", "7", "--folder", "new"],
    ["deploy", "{id}", "--set", "num_envs=2", "--folder", "new"],
    ["deploy", "{id}", "--seed", "-1", "--folder", "new"],
    ["resume", "nowhere"],
    ["resume", "file"],
    ["report", "nowhere"],
    ["bench", "{id}", "--suite", "nope"],
    ["bench", "{id}", "--seeds", "0"],
    ["bench", "{id}", "--out", "file"],
    ["calibrate", "nope"],
]


@pytest.mark.parametrize("problem", [e.id for e in entries()])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_mistake_on_the_command_line_is_one_sentence(
    command, problem, tmp_path, monkeypatch, capsys
):
    from allocgym.__main__ import main

    if problem != "data-mixing" and "{id}" not in command:
        return
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    arguments = [part.format(id=problem) for part in command]
    monkeypatch.setattr(sys, "argv", ["allocgym", *arguments])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code not in (0, None), told.out
    assert "Traceback" not in told.out + told.err
    # The parser's own mistakes come in its box; ours in one line.
    if told.err.startswith("allocgym: "):
        assert told.err.count("\n") == 1
    assert not (tmp_path / "new").exists(), "work was begun"


def test_the_list_names_every_problem():
    text = CliRunner().invoke(app, ["list"]).output
    assert all(e.id in text for e in entries())
