"""The real back end of data mixing, on a few steps."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

from allocgym.envs.core.builder import make_backend
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError, CorruptFileError, OutOfBudgetError
from allocgym.envs.core.scenario import choose
from allocgym.envs.data_mixing import schedules
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.real_backend.core import checkpoints
from allocgym.real_backend.data_mixing.model import GPT, PRESETS, ModelConfig
from allocgym.real_backend.data_mixing.scenario import SCENARIOS

QUICK = {
    "domains": ("json", "arithmetic", "sql"),
    "source": ("json", "arithmetic"),
    "steps": 4,
    "horizon": 2,
    "base_steps": 4,
    "valid_windows": 4,
    "test_windows": 6,
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def make(cache):
    def build(n_max=8, **arguments):
        defaults = QUICK | {"device": "cpu", "cache_dir": cache}
        arguments = defaults | arguments
        scenario = arguments.pop("scenario", "continual-pretraining")
        return make_backend(DataMixing(n_max), "real", scenario, **arguments)

    return build


def shares(*units, n_max=8):
    row = np.zeros((1, n_max), np.int64)
    row[0, : len(units)] = units
    return Shares(row)


def test_a_period_spends_exactly(make):
    backend = make()
    outcome = backend.reset(np.array([0]))
    assert outcome.instance.budget.tolist() == [32]
    assert backend.ledger.left.tolist() == [64]
    for period, units in enumerate(((10, 12, 10), (2, 20, 10))):
        outcome = backend.spend(shares(*units))
        assert outcome.spent.tolist() == [32]
        assert outcome.period.tolist() == [period + 1]
        assert outcome.units[0, :3].tolist() == list(units)
    assert outcome.seen[0, :3].tolist() == [12, 32, 20]
    assert backend.trainer.cursors.tolist() == [12, 32, 20]
    assert outcome.done.all() and outcome.lr[0] == outcome.lr_left[0] == 0
    assert backend.ledger.left.tolist() == [0]
    with pytest.raises(OutOfBudgetError):
        backend.spend(shares(10, 12, 10))


def test_bad_decisions_are_refused_and_cost_nothing(make):
    backend = make()
    backend.reset(np.array([0]))
    for bad in (shares(10, 10, 10), shares(-1, 23, 10), shares(10, 10, 10, 2)):
        with pytest.raises(AllocgymError, match="units"):
            backend.spend(bad)
    assert backend.ledger.left.tolist() == [64]


def test_padding_is_finite_and_the_observation_too(make):
    problem = DataMixing(8)
    backend = make()
    outcome = backend.reset(np.array([0]))
    assert outcome.instance.limit.min() >= 1 and outcome.instance.unique.min() >= 1
    memory = problem.begin(outcome)
    for _ in range(2):
        decision = problem.decode(np.zeros((1, 8), np.float32), memory)
        problem.check(decision, memory)
        outcome = backend.spend(decision)
        memory = problem.update(memory, outcome)
        with np.errstate(all="raise"):
            observation = problem.encode(memory)
        assert all(np.isfinite(value).all() for value in observation.values())
        assert (outcome.losses > 0).all() and np.isfinite(outcome.heldout).all()


def test_the_kth_sequence_of_a_domain_is_the_same_under_every_mixture(make):
    streams = []
    for units in ((4, 14, 14), (26, 3, 3)):
        backend = make()
        backend.reset(np.array([7]))
        seen = {0: [], 1: [], 2: []}
        trainer = backend.trainer
        for domain, stream in enumerate(trainer._streams):
            original = stream.sequence

            def record(k, domain=domain, original=original, seen=seen):
                window, scored = original(k)
                seen[domain].append(window.tobytes())
                return window, scored

            stream.sequence = record
        backend.spend(shares(*units))
        assert [len(seen[d]) for d in range(3)] == list(units)
        streams.append(seen)
    for domain in range(3):
        a, b = streams[0][domain], streams[1][domain]
        short = min(len(a), len(b))
        assert a[:short] == b[:short]


def test_training_lowers_the_loss(make):
    backend = make(steps=30, base_steps=4, peak_lr=3e-3)
    start = backend.reset(np.array([0])).heldout
    for _ in range(2):
        outcome = backend.spend(shares(80, 80, 80))
    assert (outcome.heldout[0, :3] < start[0, :3] - 0.3).all()


def test_an_episode_is_a_function_of_its_seed(make):
    def episode(seed):
        backend = make()
        backend.reset(np.array([seed]))
        return backend.spend(shares(10, 12, 10)).losses

    assert (episode(1) == episode(1)).all()
    assert (episode(1) != episode(2)).any()


def finish(backend):
    backend.spend(shares(2, 20, 10))
    return backend.outcome.to_json(), backend.trainer.state()


def test_restore_is_bit_equal(make, tmp_path):
    backend = make()
    backend.reset(np.array([5]))
    backend.checkpoint(tmp_path / "start.ckpt")
    backend.spend(shares(10, 12, 10))
    backend.checkpoint(tmp_path / "middle.ckpt")
    outcome, state = finish(backend)
    for name in ("middle", "start"):
        other = make()
        other.restore(tmp_path / f"{name}.ckpt")
        if name == "start":
            other.spend(shares(10, 12, 10))
        assert other.ledger.left.tolist() == [32]
        found, weights = finish(other)
        assert found == outcome
        assert weights.keys() == state.keys()
        assert all(torch.equal(weights[key], state[key]) for key in state)


def test_restore_is_bit_equal_in_another_process(make, tmp_path, cache):
    backend = make()
    backend.reset(np.array([5]))
    backend.spend(shares(10, 12, 10))
    path = tmp_path / "middle.ckpt"
    backend.checkpoint(path)
    outcome, _ = finish(backend)
    script = f"""
        import json, numpy as np
        from allocgym.envs.core.builder import build
        from allocgym.envs.core.contracts import Shares
        backend = build("data-mixing", "real", device="cpu", cache_dir={str(cache)!r}, **{QUICK!r})
        backend.restore({str(path)!r})
        print(json.dumps(backend.spend(Shares(np.array([[2, 20, 10, 0, 0, 0, 0, 0]]))).to_json()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(json.dumps(outcome))


def test_a_damaged_checkpoint_is_recognised(make, tmp_path):
    backend = make()
    backend.reset(np.array([0]))
    path = tmp_path / "run.ckpt"
    backend.checkpoint(path)
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-1000] ^= 1
    for damaged in (data[:-10], data[:100], b"", bytes(flipped), b"hello" * 100):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError, match=r"run\.ckpt"):
            backend.restore(path)
    with pytest.raises(AllocgymError, match="no such file"):
        backend.restore(tmp_path / "nothing")


def test_a_checkpoint_of_another_run_is_refused(make, tmp_path):
    backend = make()
    backend.reset(np.array([0]))
    backend.checkpoint(tmp_path / "run.ckpt")
    with pytest.raises(AllocgymError, match="setting"):
        make(peak_lr=1e-4).restore(tmp_path / "run.ckpt")
    with pytest.raises(AllocgymError, match="n_max"):
        make(n_max=4).restore(tmp_path / "run.ckpt")


def test_nan_is_survived(make):
    backend = make()
    start = backend.reset(np.array([0]))
    backend._rates = np.array([np.nan, np.nan, 1e-3, 1e-3])
    weights = backend.trainer.weights()
    outcome = backend.spend(shares(10, 12, 10))
    assert not outcome.valid[0] and outcome.failure[0] == 1
    assert outcome.spent[0] == 0 and outcome.wasted[0] == 32
    assert (outcome.losses == start.losses).all()
    after = backend.trainer.weights()
    assert all(torch.equal(weights[key], after[key]) for key in weights)
    assert backend.trainer.cursors.tolist() == [10, 12, 10]
    outcome = backend.spend(shares(10, 12, 10))
    assert outcome.valid[0] and np.isfinite(outcome.heldout).all()


def test_a_damaged_base_is_trained_again(make, tmp_path):
    first = make(cache_dir=tmp_path)
    losses = first.reset(np.array([0])).losses
    (path,) = tmp_path.rglob("base-*.safetensors")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.warns(UserWarning, match="training the base model again"):
        again = make(cache_dir=tmp_path).reset(np.array([0])).losses
    assert (again == losses).all()
    calls = []
    cached = make(cache_dir=tmp_path, progress=lambda *told: calls.append(told))
    assert (cached.reset(np.array([0])).losses == losses).all() and not calls


def test_progress_is_told(make, tmp_path):
    calls = []
    backend = make(cache_dir=tmp_path, progress=lambda *told: calls.append(told))
    backend.reset(np.array([0]))
    backend.spend(shares(8, 8, 16))
    assert [c[:3] for c in calls] == [(-1, k, 4) for k in (1, 2, 3, 4)] + [(0, 1, 2), (0, 2, 2)]
    assert calls[-1][3].tolist() == [0.25, 0.25, 0.5]


def test_clocks_and_heldout(make):
    charged = make()
    start = charged.reset(np.array([0]))
    outcome = charged.spend(shares(10, 12, 10))
    assert outcome.seconds[0] == pytest.approx(2 * 0.035 + 3 * 4 * 128 * 6e-6)
    assert (outcome.heldout == start.heldout).all()
    wall = make(clock="wall", heldout="every")
    wall.reset(np.array([0]))
    outcome = wall.spend(shares(10, 12, 10))
    assert outcome.seconds[0] > 0 and (outcome.heldout != start.heldout).any()


def test_settings_are_checked():
    with pytest.raises(AllocgymError, match="Did you mean 'skills'"):
        choose(SCENARIOS, "skill", {})
    with pytest.raises(AllocgymError, match="Did you mean 'steps'"):
        choose(SCENARIOS, "scratch", {"step": 3})
    for field, value in (
        ("steps", 201),
        ("steps", 0),
        ("peak_lr", -1.0),
        ("preset", "huge"),
        ("floor", 0.5),
        ("schedule", "linear"),
        ("unique", {"prose": 1, "json": 1, "code": 1, "arithmetic": 1}),
        ("weights", {"poems": 1.0}),
        ("weights", {"prose": -1.0}),
        ("source", ("poems",)),
        ("base_steps", 10),
        ("domains", ("prose",)),
        ("graph", ((1.0,),)),
    ):
        with pytest.raises(AllocgymError):
            choose(SCENARIOS, "scratch", {field: value})


def test_scenarios_are_what_they_say():
    cpt = choose(SCENARIOS, "continual-pretraining", {})
    assert cpt.objective_weights().tolist() == [0.25, 0.25, 0.5] and cpt.budget == 320
    scarce = choose(SCENARIOS, "low-resource", {})
    assert scarce.limits().tolist() == [1024, 3200, 3200, 512]
    assert choose(SCENARIOS, "skills", {}).graph[0][1] == 0.5
    for schedule in schedules.SCHEDULES:
        rates = schedules.step_rates(schedule, 200)
        assert rates.max() <= 1 and rates.min() > 0 and rates[0] < 0.2


def test_back_end_arguments_are_checked(make):
    for arguments in (
        {"num_envs": 2},
        {"clock": "cpu"},
        {"heldout": "never"},
        {"threads": 0},
        {"device": "abacus"},
        {"n_max": 2},
    ):
        with pytest.raises(AllocgymError):
            make(**arguments)
    backend = make()
    backend.close()
    with pytest.raises(AllocgymError, match="closed"):
        backend.reset(np.array([0]))


def test_model_is_causal_and_of_the_size_it_says():
    model = GPT(PRESETS["tiny"])
    assert 100_000 < model.size() < 140_000
    tokens = torch.randint(0, 256, (2, 128), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 64:] = 0
    with torch.no_grad():
        a, b = model(tokens), model(changed)
    assert torch.allclose(a[:, :64], b[:, :64], atol=1e-5)
    with pytest.raises(AllocgymError, match="heads"):
        ModelConfig(width=60, heads=8)


def test_checkpoint_keeps_scalars_and_infinities(tmp_path):
    tensors = {"a": torch.tensor(3.0), "b": torch.arange(6).reshape(2, 3).T}
    checkpoints.save(tmp_path / "x", tensors, {"epsilon": float("inf")})
    found, data = checkpoints.load(tmp_path / "x")
    assert data == {"epsilon": float("inf")}
    assert all(torch.equal(found[k], tensors[k]) for k in tensors)
