import json
import pickle
import shutil
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from allocgym.agents.core import agent_file, catalogue  # noqa: E402
from allocgym.agents.core.agent import PolicyAgent, rollout  # noqa: E402
from allocgym.agents.data_mixing import gradient  # noqa: E402
from allocgym.envs.core import registry  # noqa: E402
from allocgym.envs.core.builder import build_problem  # noqa: E402
from allocgym.envs.core.builder import make_backend as registered  # noqa: E402
from allocgym.envs.core.errors import AllocgymError, CorruptFileError  # noqa: E402
from allocgym.envs.core.untrusted import numbers  # noqa: E402
from allocgym.envs.data_mixing.problem import DataMixing  # noqa: E402


@pytest.fixture(scope="module")
def policy():
    torch.manual_seed(0)
    made = gradient.new_policy(DataMixing(), hidden=12)
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.3 * torch.randn_like(weight))
    return made.eval()


@pytest.fixture
def path(tmp_path, policy):
    file = tmp_path / "mixer.zip"
    agent_file.save(file, DataMixing(), *policy.to_file(), {"seed": 0})
    return file


def rewrite(path, change=None, **members):
    """Replace members of an agent file, or fields of its description."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(held["agent.json"])
    held["agent.json"] = json.dumps(description | (change or {})).encode()
    held |= {name.replace("__", "."): data for name, data in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            archive.writestr(name, data)


def test_a_saved_agent_decides_as_before(path, policy, problem, make_backend):
    loaded = catalogue.make(path, problem)
    assert loaded.name == "mixer"
    backend = make_backend(num_envs=5)
    before = rollout(PolicyAgent(problem, policy), backend, np.arange(5))
    after = rollout(loaded, backend, np.arange(5))
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.units, other.units)


def test_a_policy_of_eight_runs_at_thirty_two(path):
    problem = DataMixing(n_max=32)
    agent = catalogue.make(path, problem)
    backend = registered(problem, "twin", scenario="scratch", num_envs=2, domains=(20, 32))
    outcomes = rollout(agent, backend, np.arange(2))
    last = outcomes[-1]
    assert last.done.all() and (last.ready.sum(1) >= 20).all()
    assert (last.units.sum(1) == last.instance.budget).all()


def test_heuristics_are_kept_without_weights(tmp_path, problem):
    agent_file.save(tmp_path / "odm.zip", problem, "odm", {})
    assert zipfile.ZipFile(tmp_path / "odm.zip").namelist() == ["agent.json"]
    assert catalogue.make(tmp_path / "odm.zip", problem).name == "odm"
    settings = {"weights": [0.5] * 8}
    agent_file.save(tmp_path / "index.zip", problem, "index", settings)
    assert catalogue.make(tmp_path / "index.zip", problem).weights.tolist() == [0.5] * 8


def test_a_pickle_is_refused_and_never_run(path, problem, tmp_path):
    trap = tmp_path / "executed"

    class Trap:
        def __reduce__(self):
            return (open, (str(trap), "w"))

    rewrite(path, weights__safetensors=pickle.dumps(Trap()))
    with pytest.raises(CorruptFileError, match="damaged weights"):
        catalogue.make(path, problem)
    rewrite(path, policy__pkl=pickle.dumps(Trap()))
    with pytest.raises(CorruptFileError, match=r"policy\.pkl"):
        catalogue.make(path, problem)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CorruptFileError, match="not an agent file"):
        catalogue.make(path, problem)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"schema": 99}, CorruptFileError, "schema 1 expected"),
        ({"problem": "prb-slicing"}, AllocgymError, "an agent of 'prb-slicing'"),
        ({"encoder": "0" * 16}, AllocgymError, "another encoding"),
        ({"kind": "nope"}, AllocgymError, "unknown kind"),
        ({"kind": ["set-policy"]}, AllocgymError, "mixer"),
        ({"kind": "index", "settings": {}}, AllocgymError, "mixer"),
        ({"settings": {"rows": 3}}, CorruptFileError, "do not fit"),
        ({"settings": [1, 2]}, CorruptFileError, "do not fit"),
        ({"settings": {"rows": 14, "context": 9, "hidden": -1}}, CorruptFileError, "do not fit"),
        ({"settings": {"rows": "a", "context": 9}}, CorruptFileError, "do not fit"),
    ],
)
def test_a_wrong_description_is_told(path, problem, change, error, message):
    rewrite(path, change)
    with pytest.raises(error, match=message):
        catalogue.make(path, problem)


def test_an_absent_kind_is_told(path, problem):
    with zipfile.ZipFile(path) as archive:
        description = json.loads(archive.read("agent.json"))
    del description["kind"]
    rewrite(path, agent__json=json.dumps(description).encode())
    with pytest.raises(AllocgymError, match="mixer"):
        catalogue.make(path, problem)


@pytest.mark.parametrize(
    "text", [b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000], ids=lambda t: repr(t[:4])
)
def test_a_description_that_is_none_is_refused(path, problem, text):
    rewrite(path, agent__json=text)
    with pytest.raises(CorruptFileError):
        catalogue.make(path, problem)


def test_garbage_and_truncation_are_refused_anywhere(path, problem):
    whole = path.read_bytes()
    for bad in [b"", b"garbage", whole[: len(whole) // 2], whole[:-5], whole[5:]]:
        path.write_bytes(bad)
        with pytest.raises(CorruptFileError):
            catalogue.make(path, problem)


def test_a_flipped_byte_is_noticed_or_harmless(path, problem):
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 120)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            catalogue.make(path, problem)
        except AllocgymError:
            continue


def test_no_file_and_folders_are_told(tmp_path, problem):
    with pytest.raises(AllocgymError, match="no file"):
        catalogue.make(tmp_path / "none.zip", problem)
    with pytest.raises(AllocgymError):
        catalogue.make(tmp_path, problem)


def observation(policy, seed, n=6, present=4):
    rng = np.random.default_rng(seed)
    mask = np.arange(n) < present
    return {
        "claimants": (rng.normal(size=(2, n, 14)) * mask[:, None]).astype(np.float32),
        "context": rng.normal(size=(2, 9)).astype(np.float32),
        "present": np.tile(mask, (2, 1)).astype(np.int8),
    }


def test_permuting_claimants_permutes_actions(policy):
    order = np.random.default_rng(0).permutation(6)
    state = other = None
    for seed in range(3):
        x = observation(policy, seed)
        moved = {k: v[:, order] if k != "context" else v for k, v in x.items()}
        action, state = policy.predict(x, state)
        again, other = policy.predict(moved, other)
        np.testing.assert_allclose(action[:, order], again, atol=1e-6)
    assert np.ptp(action[:, :4]) > 1e-3


def test_padding_changes_nothing(policy):
    x = observation(policy, 0, n=6)
    wide = {
        "claimants": np.pad(x["claimants"], ((0, 0), (0, 5), (0, 0)), constant_values=3.0),
        "context": x["context"],
        "present": np.pad(x["present"], ((0, 0), (0, 5))),
    }
    one, other = policy.predict(x)[0], policy.predict(wide)[0]
    np.testing.assert_allclose(one, other[:, :6], atol=1e-6)
    assert not other[:, 4:].any() and (np.abs(other) <= 1).all()


def test_an_observation_of_other_features_is_refused(policy):
    x = observation(policy, 0)
    x["claimants"] = x["claimants"][..., :5]
    with pytest.raises(AllocgymError, match="14 features"):
        policy.predict(x)


def test_training_through_the_simulator_lowers_the_objective(problem, make_backend):
    seen = []
    gradient.train(
        problem,
        make_backend(num_envs=32),
        iterations=12,
        hidden=12,
        progress=lambda _, gain: seen.append(gain),
    )
    assert len(seen) == 12 and np.isfinite(seen).all()
    assert np.mean(seen[-4:]) > np.mean(seen[:4])


def test_a_price_on_changes_makes_a_steadier_policy(problem, make_backend):
    changes = []
    for price in (0.0, 5.0):
        backend = make_backend(num_envs=32)
        policy, _ = gradient.train(problem, backend, iterations=25, hidden=12, steadiness=price)
        played = rollout(PolicyAgent(problem, policy, "learned"), backend, np.arange(32))
        shares = np.stack([o.units / o.units.sum(1, keepdims=True) for o in played[1:]])
        changes.append(np.square(np.diff(shares, axis=0)).sum())
    assert changes[1] < 0.5 * changes[0]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_training_on_instances_that_overflow_says_so(problem, make_backend):
    with pytest.raises(AllocgymError, match="jitter"):
        gradient.train(problem, make_backend(num_envs=256, jitter=40.0), iterations=5, hidden=12)


def header(path):
    """The weights of an agent file: header and the rest."""
    with zipfile.ZipFile(path) as archive:
        raw = archive.read("weights.safetensors")
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def packed(description, rest):
    text = json.dumps(description).encode()
    return len(text).to_bytes(8, "little") + text + rest


def nothing_more_than(megabytes, work):
    """Run some work under a limit on what it may allocate on top."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] <= megabytes * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("member", ["agent.json", "weights.safetensors"])
def test_a_bomb_takes_no_memory(path, problem, method, member):
    """What would unpack into more than it may, or in a way that cannot be bounded, is not unpacked."""
    megabytes = 300 if (method, member[0]) == (zipfile.ZIP_DEFLATED, "w") else 8
    with zipfile.ZipFile(path) as archive:
        description = archive.read("agent.json")
    with zipfile.ZipFile(path, "w", method) as archive:
        if member != "agent.json":
            archive.writestr("agent.json", description)
        with archive.open(member, "w") as file:
            for _ in range(megabytes):
                file.write(bytes(2**20))

    def read():
        with pytest.raises(CorruptFileError, match=r"larger than|packed in another way"):
            agent_file.load(path, problem)

    assert nothing_more_than(4, read)


def test_a_size_that_is_a_lie_is_not_believed(path, problem):
    """The list of members says 100 bytes; the stream would be 40 megabytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("agent.json", bytes(40 * 2**20))
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = (100).to_bytes(4, "little")
    path.write_bytes(bytes(data))

    def read():
        with pytest.raises(CorruptFileError):
            agent_file.load(path, problem)

    assert nothing_more_than(4, read)


def test_a_list_of_many_members_is_not_read(path, problem):
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(500):
            archive.writestr(f"member-{k}", b"")
    with pytest.raises(CorruptFileError, match="too many members"):
        agent_file.load(path, problem)


def test_members_that_come_twice_are_refused(path, problem):
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("agent.json", "{}")
    with pytest.raises(CorruptFileError, match=r"agent\.json, agent\.json"):
        agent_file.load(path, problem)


@pytest.mark.parametrize("hidden", [10**5, 10**9, 10**18])
def test_a_network_of_any_size_is_refused_before_it_is_made(path, problem, hidden):
    settings = {"rows": 14, "context": 9, "hidden": hidden, "recurrent": True}
    rewrite(path, {"settings": settings})
    with pytest.raises(CorruptFileError, match="do not fit"):
        agent_file.load_policy(path, problem)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda h, rest: (10**6).to_bytes(8, "little") + b"{}",
        lambda h, rest: (2**63).to_bytes(8, "little") + json.dumps(h).encode() + rest,
        lambda h, rest: packed([1], rest),
        lambda h, rest: packed({**h, "more": 3}, rest),
        lambda h, rest: packed({}, rest),
        lambda h, rest: packed(h, rest[:-4]),
        lambda h, rest: packed(h, rest + b"more"),
        lambda h, rest: packed({k: v | {"dtype": "F64"} for k, v in h.items()}, rest),
        lambda h, rest: packed({k: v | {"dtype": "PICKLE"} for k, v in h.items()}, rest),
        lambda h, rest: packed({k: v | {"shape": [-1, 2]} for k, v in h.items()}, rest),
        lambda h, rest: packed({k: v | {"shape": [2**40, 2**40]} for k, v in h.items()}, rest),
        lambda h, rest: packed({k: v | {"data_offsets": [0, 4]} for k, v in h.items()}, rest),
        lambda h, rest: packed(h, np.full(len(rest) // 4, np.nan, np.float32).tobytes()),
        lambda h, rest: b"",
    ],
)
def test_weights_whose_header_is_not_true_are_refused(path, problem, spoil):
    rewrite(path, weights__safetensors=spoil(*header(path)))
    with pytest.raises(CorruptFileError, match="damaged weights") as told:
        agent_file.load(path, problem)
    assert "\n" not in str(told.value)


def test_a_file_larger_than_an_agent_may_be_is_not_opened(path, problem, monkeypatch):
    monkeypatch.setattr(agent_file, "LARGEST", 1000)
    with pytest.raises(CorruptFileError, match="bytes, larger than an agent file may be"):
        agent_file.load(path, problem)


def test_weights_of_another_precision_are_refused(path, problem):
    described, rest = header(path)
    double = np.frombuffer(rest, np.float32).astype(np.float64).tobytes()
    told = {
        name: {**v, "dtype": "F64", "data_offsets": [2 * o for o in v["data_offsets"]]}
        for name, v in described.items()
        if name != "__metadata__"
    }
    rewrite(path, weights__safetensors=packed(told, double))
    with pytest.raises(CorruptFileError, match=r"float32 expected, given torch\.float64"):
        agent_file.load_policy(path, problem)


BUNDLED = sorted(Path(agent_file.__file__).parents[1].glob("*/pretrained/*.zip"))


@pytest.mark.parametrize("bundled", BUNDLED, ids=lambda p: f"{p.parts[-3]}/{p.name}")
def test_bundled_agents_with_wrong_settings_are_told_apart_in_a_sentence(bundled, tmp_path):
    with zipfile.ZipFile(bundled) as archive:
        described = json.loads(archive.read("agent.json"))
    entry = registry.entry(described["problem"])
    problem = build_problem(entry.id, entry.vector_backend)
    path = tmp_path / bundled.name
    for key, held in described["settings"].items():
        for value in (None, "x", -1, [], {}, 10**9):
            shutil.copy(bundled, path)
            rewrite(path, {"settings": {**described["settings"], key: value}})
            try:
                catalogue.make(str(path), problem)
            except AllocgymError as error:
                assert "\n" not in str(error), (key, held)


@pytest.mark.parametrize(
    "given", [None, "x", [], [1.0], [1.0, np.nan], [1.0, np.inf], [[1, 2]], {}]
)
def test_parameters_are_so_many_finite_numbers(given):
    with pytest.raises(AllocgymError, match="weights: 2 finite number"):
        numbers("weights", given, (2,))
    assert numbers("weights", (1, 2.5), (2,)).tolist() == [1.0, 2.5]
