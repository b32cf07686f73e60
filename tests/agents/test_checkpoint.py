"""A training that was interrupted goes on; what is kept of it is looked at before it is believed."""

import json
import zipfile

import numpy as np
import pytest

from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.training import train
from allocgym.envs.core.errors import AllocgymError, OwnedError

pytest.importorskip("torch")


class Killed(BaseException):
    """As a kill would: nothing is caught, nothing is cleaned up."""


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def killed_after(patch, count):
    """Keep at every occasion; be killed after so many."""
    keep, left = Checkpoint.keep, [count]

    def kept(self, state):
        keep(self, state)
        left[0] -= 1
        if left[0] == 0:
            raise Killed

    patch.setattr(Checkpoint, "due", property(lambda self: self.folder is not None))
    patch.setattr(Checkpoint, "keep", kept)


def holds(path):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(parts.pop("agent.json"))
    description["provenance"].pop("seconds")
    return description, parts


SMALL = {"horizon": 4, "batch": 4}
CASES = {
    "gradient": ("data-mixing", "scratch", "gradient", 5, SMALL),
    "cma": ("population", None, "cma", 2, SMALL),
    "portfolio": ("packing", None, "cma", 1, {"members": 1}),
    "ppo": ("population", None, "ppo", 3, SMALL),
    "table": ("prb-slicing", "generated", "table", 1, {"mix": "111"}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_interrupted_training_ends_as_the_undisturbed_one(tmp_path, case):
    problem, scenario, trainer, iterations, arguments = CASES[case]
    told = []

    def run(name):
        told.clear()
        return train(
            problem,
            tmp_path / name,
            scenario,
            trainer,
            iterations,
            3,
            dict(arguments),
            lambda done, score: told.append(done),
        )

    run("steady.zip")
    with pytest.MonkeyPatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            run("b.zip")
    assert (tmp_path / "b.zip.training" / "state.json").exists()
    assert not (tmp_path / "b.zip").exists()
    run("b.zip")
    if case in ("gradient", "ppo"):  # the others are told what they knew already
        assert told[0] > 1
    assert holds(tmp_path / "b.zip") == holds(tmp_path / "steady.zip")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.zip", "steady.zip"]


def test_another_training_to_the_same_file_is_refused_and_changes_nothing(tmp_path):
    out = tmp_path / "a.zip"
    with pytest.MonkeyPatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Killed):
            train("data-mixing", out, "scratch", "gradient", 5, 3, dict(SMALL))
    before = (tmp_path / "a.zip.training" / "state.json").read_bytes()
    for change in ({"seed": 4}, {"iterations": 6}, {"arguments": {**SMALL, "steadiness": 0.5}}):
        asked = {"iterations": 5, "seed": 3, "arguments": dict(SMALL), **change}
        with pytest.raises(AllocgymError, match=f"a training with {next(iter(change))} .* was int"):
            train("data-mixing", out, "scratch", "gradient", **asked)
    assert (tmp_path / "a.zip.training" / "state.json").read_bytes() == before


def kept(folder, state, identity=None, clock=None):
    """Leave a checkpoint of a state behind, as a kill would."""
    with pytest.raises(Killed), Checkpoint(folder, identity, clock or Clock()) as one:
        one._clock.now += 2
        one.keep(lambda: state)
        raise Killed


def test_what_was_kept_comes_back_bit_for_bit(tmp_path):
    import torch

    state = {
        "weights": torch.arange(6, dtype=torch.float32).reshape(2, 3) / 7,
        "generator": np.random.default_rng(5),
        "numbers": (1, 0.1, float("inf"), None, True),
        "array": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    }
    kept(tmp_path / "x", state)
    with Checkpoint(tmp_path / "x") as again:
        found = again.state
    assert torch.equal(found["weights"], state["weights"])
    assert found["generator"].random() == np.random.default_rng(5).random()
    assert found["numbers"] == state["numbers"]
    assert np.array_equal(found["array"], state["array"]) and found["array"].flags.f_contiguous
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-9], lambda b: b"", lambda b: b[:80] + b"x" + b[81:]]
)
def test_a_damaged_checkpoint_is_not_believed(tmp_path, damage):
    kept(tmp_path / "x", [1, 2])
    file = tmp_path / "x" / "state.json"
    file.write_bytes(damage(file.read_bytes()))
    with (
        pytest.warns(UserWarning, match="damaged .* begins anew"),
        Checkpoint(tmp_path / "x") as it,
    ):
        assert it.state is None and it.seconds == 0


def test_two_processes_do_not_train_to_one_file(tmp_path):
    with Checkpoint(tmp_path / "x"), pytest.raises(OwnedError, match="is at work there"):
        Checkpoint(tmp_path / "x").__enter__()


def test_checkpoints_take_a_twentieth_of_the_time_at_most(tmp_path):
    clock = Clock()
    written = []

    def slow():
        clock.now += 1.0
        written.append(clock.now)
        return 0

    with Checkpoint(tmp_path / "x", clock=clock) as checkpoint:
        while clock.now < 100:
            clock.now += 0.5
            checkpoint.keep(slow)
    assert 4 <= len(written) <= 5


def test_what_cannot_be_written_down_is_said_once_and_training_goes_on(tmp_path):
    clock = Clock()
    with Checkpoint(tmp_path / "x", clock=clock) as checkpoint:
        clock.now = 2
        with pytest.warns(UserWarning, match="no checkpoints are kept"):
            checkpoint.keep(object)
        clock.now = 99
        checkpoint.keep(object)


def test_a_search_that_asks_for_something_else_is_not_told_what_was_known(tmp_path):
    clock, asked = Clock(), []

    def score(parameters, seeds):
        clock.now += 2
        asked.append(parameters[0])
        return sum(parameters) + float(seeds.sum())

    seeds = np.arange(3)
    with pytest.raises(Killed), Checkpoint(tmp_path / "x", clock=clock) as one:
        price = one.replayed(score)
        assert [price([v], seeds) for v in (1.0, 2.0, 3.0)] == [4.0, 5.0, 6.0]
        raise Killed
    asked.clear()
    with Checkpoint(tmp_path / "x", clock=clock) as again:
        price = again.replayed(score)
        assert [price([v], seeds) for v in (1.0, 2.5, 3.0)] == [4.0, 5.5, 6.0]
    assert asked == [2.5, 3.0]


def test_a_training_that_could_not_begin_leaves_nothing_behind(tmp_path):
    with pytest.raises(AllocgymError, match="horizon"):
        train("data-mixing", tmp_path / "a.zip", arguments={"horizon": -1})
    assert not list(tmp_path.iterdir())
