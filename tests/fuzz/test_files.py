"""Files from strangers, and our own after an accident: read, or refused in a sentence."""

import gzip
import hashlib
import importlib
import json
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import content, damaged, dumped, many
from hypothesis import given
from hypothesis import strategies as st

import allocgym
from allocgym.agents.core import catalogue
from allocgym.agents.core.checkpoint import Checkpoint
from allocgym.agents.core.run_folder import begun_as, describe_run, read_run
from allocgym.envs.activation_plan.profile import profile_from_json
from allocgym.envs.core.builder import make_problem
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.journal import Journal
from allocgym.envs.core.record import Record
from allocgym.envs.memory_mapping.program import from_trace, to_trace
from allocgym.envs.packing.buffer import Buffers, from_csv, to_csv
from allocgym.simulators.activation_plan.profile import gpt_step
from allocgym.simulators.memory_mapping.program import bundled, recorded
from allocgym.simulators.memory_mapping.scenario import TRAIN
from allocgym.simulators.prb_slicing import traffic

AGENTS = sorted((Path(allocgym.__file__).parent / "agents").rglob("pretrained/*.zip"))


def finite(value):
    """No number in it is NaN: arrays, records, containers and objects of these."""
    if isinstance(value, np.ndarray):
        return value.dtype.kind != "f" or not np.isnan(value).any()
    if isinstance(value, Record):
        return all(finite(v) for v in vars(value).values())
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    return not (isinstance(value, float) and value != value)


def reads(harmless, read, *given):
    """Read what may be anything; None where it was refused in a sentence."""
    with harmless():
        try:
            return read(*given)
        except AllocgymError as error:
            assert str(error) and len(str(error)) < 2000
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("path", AGENTS, ids=lambda p: f"{p.parts[-3]}/{p.stem}")
def test_agent_files(path, folder, harmless):
    pytest.importorskip("safetensors")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    description = json.loads(parts["agent.json"])
    problem = make_problem(description["problem"])
    catalogue.make(path, problem)  # what is imported on the way is
    file = folder / f"{path.parts[-3]}-{path.name}"

    @many
    @given(data=st.data())
    def one(data):
        which = data.draw(st.sampled_from(["description", "weights", "bytes"]))
        if which == "bytes":
            file.write_bytes(data.draw(damaged(path.read_bytes())))
        else:
            made = dict(parts)
            if which == "description":
                made["agent.json"] = data.draw(content(description))
            elif "weights.safetensors" in made:
                made["weights.safetensors"] = data.draw(damaged(made["weights.safetensors"][:4000]))
            with zipfile.ZipFile(file, "w") as archive:
                for name, text in made.items():
                    archive.writestr(name, text)
        agent = reads(harmless, catalogue.make, file, problem)
        assert agent is None or finite(getattr(agent, "weights", None))

    one()


@pytest.fixture(scope="module")
def run(folder):
    given = {
        "problem": "data-mixing",
        "scenario": "scratch",
        "backend": "twin",
        "overrides": ["a=1"],
    }
    where = folder / "run"
    describe_run(where, {**given, "seed": 3, "agent": str(AGENTS[0]), "fallback": "uniform"})
    return where, json.loads((where / "run.json").read_text())


@many
@given(data=st.data())
def test_descriptions_of_runs(run, harmless, data):
    where, described = run
    (where / "run.json").write_bytes(data.draw(content(described)))
    reads(harmless, begun_as, where)
    found = reads(harmless, read_run, where)
    assert found is None or isinstance(found, dict)


def lines_of(entries):
    total, lines = 0, []
    for number, entry in enumerate(entries):
        text = entry if isinstance(entry, bytes) else dumped(entry)
        total = zlib.crc32(text, total)
        lines.append(b"%08d %08x %s\n" % (number, total, text))
    return b"".join(lines)


@many
@given(data=st.data())
def test_journals(folder, harmless, data):
    entries = [{"kind": "decision", "data": {"units": [1, 2]}}, {"kind": "outcome", "data": {}}]
    text = data.draw(
        st.one_of(
            damaged(lines_of(entries)),
            st.binary(max_size=99),
            st.lists(content(entries[0]), max_size=3).map(lines_of),
        )
    )
    file = folder / "journal.jsonl"
    file.write_bytes(text)
    journal = reads(harmless, Journal.reading, file)
    if journal is not None:
        found = reads(harmless, lambda: journal.entries)
        assert found is None or all(isinstance(entry, dict) for entry in found)
        journal.close()


@many
@given(data=st.data())
def test_checkpoints_of_trainings(folder, harmless, data):
    file = folder / "a.zip.training" / "state.json"
    file.parent.mkdir(exist_ok=True)
    good = {"identity": {"seed": 1}, "seconds": 1.5, "state": [1, {"array": 2}]}
    text = dumped(good)
    file.write_bytes(data.draw(damaged(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)))
    checkpoint = Checkpoint(file.parent, {"seed": 1})
    with warnings.catch_warnings(action="ignore", category=UserWarning):
        reads(harmless, checkpoint._read, file)


PACKED = to_csv(
    Buffers("x", np.array([0, 3, 1]), np.array([4, 9, 2]), np.array([5, 6, 7]), 99)
).encode()
CSV = st.one_of(
    damaged(PACKED),
    st.lists(
        st.lists(
            st.sampled_from(["0", "1", "9", "-1", "1e9", "", " 7", "x", str(-(2**63)), "9" * 30]),
            min_size=1,
            max_size=5,
        ).map(",".join),
        max_size=5,
    ).map(lambda rows: "\n".join(["id,lower,upper,size", *rows]).encode()),
    st.just(b"id,lower,upper,size\n1,0,1," + b"1" * 200_000),
    st.just(b'id,lower,upper,size\n"' + b"1" * 200_000),
)


@many
@given(text=CSV, capacity=st.sampled_from([0, 1, 99, 2**40]))
def test_buffers(harmless, text, capacity):
    made = reads(harmless, from_csv, text.decode(errors="replace"), "x", capacity)
    if made is not None:
        assert 0 < made.peak and (made.contention >= made.size).all()


TRACE = to_trace(bundled(TRAIN[0]))
TRACE = {**TRACE, "ops": TRACE["ops"][:6], "alias": {}}


@many
@given(text=content(TRACE))
def test_programs(folder, harmless, text):
    file = folder / "trace.json"
    file.write_bytes(text)
    made = reads(harmless, recorded, str(file))
    if made is not None:
        assert made.peak >= 0 and (made.traffic >= 0).all()
        assert all(np.isfinite(op.flops) and op.flops >= 0 for op in made.ops)
        assert from_trace(to_trace(made), made.name).peak == made.peak


PROFILE = gpt_step(64, 2, 32, 2)


@many
@given(text=content(PROFILE))
def test_profiles(harmless, text):
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return
    made = reads(harmless, profile_from_json, data, 8)
    assert made is None or finite(made)


CAPTURE = "No.,Time,Source,Length\n" + "".join(
    f"{i},{i / 7},172.30.1.{250 - i % 2},{90 + i}\n" for i in range(6)
)


@pytest.fixture(scope="module", autouse=True)
def _imported():
    """What reading imports is not counted as its memory."""
    importlib.import_module("pandas")
    importlib.import_module("pyarrow.parquet")


@many
@given(data=st.data())
def test_packet_traces(folder, harmless, data):
    packed = data.draw(st.booleans())
    file = folder / f"trace.csv{'.gz' if packed else ''}"
    good = CAPTURE.encode()
    text = data.draw(damaged(gzip.compress(good, mtime=0) if packed else good))
    file.write_bytes(text)
    made = reads(harmless, traffic.parse, file, "mine")
    if made is not None:
        assert finite(made.times) and finite(made.duration) and made.duration >= 0
        assert (made.sizes >= traffic.SMALLEST).all() and (np.diff(made.times) >= 0).all()


TEXTS = [{"text": f"document {i}: some words"} for i in range(6)]


@many
@given(data=st.data())
def test_corpora(folder, harmless, data):
    from allocgym.real_backend.data_mixing.documents import Intake

    kind = data.draw(st.sampled_from([".txt", ".jsonl", ".ndjson", ".parquet", ".md", ""]))
    file = folder / f"corpus{kind}"
    lines = b"\n".join(map(dumped, TEXTS))
    some = st.one_of(damaged(lines), st.lists(content(TEXTS[0]), max_size=4).map(b"\n".join))
    file.write_bytes(data.draw(some))
    found = reads(harmless, lambda: list(Intake("mine").read(str(file))))
    for document in found or ():
        document.decode()
