"""A run is what it was: identity, checkpoints, long runs, reports without a back end."""

import json
import shutil
import sys
import zlib

import numpy as np
import pytest

from allocgym.__main__ import main
from allocgym.agents.core import agent_file, agent_state, catalogue, controller
from allocgym.agents.core.agent import Agent, PolicyAgent
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Guards
from allocgym.agents.core.run_folder import describe_run, new_folder, read_run
from allocgym.benchmarks.core import deployment as deploying
from allocgym.benchmarks.core import deployment as deployment_core
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.journal import Journal
from allocgym.envs.core.registry import entries

SEEDS = np.array([0])
HERE = {"problem": "data-mixing", "backend": "twin", "scenario": "scratch", "seed": 3}
NONE = {"max_change": None, "max_seconds": None, "max_cost": None, "shadow": None}


def arguments(**changes):
    start = {**HERE, **NONE, "agent": "odm", "fallback": "uniform", "overrides": {"horizon": 4}}
    return start | changes


@pytest.fixture
def agent_zip(tmp_path, problem):
    path = tmp_path / "own" / "mixer.zip"
    agent_file.save(path, problem, "odm", {})
    return path


def change(folder, **parts):
    path = folder / "run.json"
    described = json.loads(path.read_text())
    described["arguments"] |= parts
    path.write_text(json.dumps(described))


def test_the_folder_holds_what_the_run_needs(tmp_path, agent_zip, monkeypatch):
    monkeypatch.chdir(agent_zip.parent)
    (agent_zip.parent / "own.txt").write_text("x")
    (agent_zip.parent / "code").write_text("a file that happens to have a domain's name")
    domains = ["code", "mine=own.txt", "web=hf:some/data"]
    given = arguments(agent="mixer.zip", overrides={"domains": domains})
    describe_run(tmp_path / "run", given)
    agent_zip.unlink()
    monkeypatch.chdir("/")
    found = read_run(tmp_path / "run")
    assert found["agent"] == str(tmp_path / "run" / "agent" / "mixer.zip")
    own = f"mine={agent_zip.parent / 'own.txt'}"
    assert found["overrides"] == {"domains": ["code", own, "web=hf:some/data"]}
    assert found["fallback"] == "uniform"


@pytest.mark.parametrize(
    "parts",
    [
        {"seed": 4},
        {"scenario": "skills"},
        {"backend": "simpy"},
        {"overrides": {}},
        {"agent": "odm"},
    ],
    ids=lambda p: next(iter(p)),
)
def test_a_description_that_was_edited_is_another_run(tmp_path, agent_zip, parts):
    describe_run(tmp_path / "run", arguments(agent=str(agent_zip)))
    assert read_run(tmp_path / "run")["seed"] == 3
    change(tmp_path / "run", **parts)
    with pytest.raises(AllocgymError, match=f"was begun with {next(iter(parts))} "):
        read_run(tmp_path / "run")


def test_an_agent_file_that_was_overwritten_is_another_run(tmp_path, agent_zip, problem):
    describe_run(tmp_path / "run", arguments(agent=str(agent_zip)))
    agent_file.save(tmp_path / "run" / "agent" / "mixer.zip", problem, "natural", {})
    with pytest.raises(AllocgymError, match="begun with agent 'sha256:"):
        read_run(tmp_path / "run")


def test_another_version_is_another_run(tmp_path, monkeypatch):
    describe_run(tmp_path / "run", arguments())
    monkeypatch.setattr("allocgym.__version__", "99.0")
    with pytest.raises(AllocgymError, match=r"begun with version '.*', this would be '99\.0'"):
        read_run(tmp_path / "run")


def test_an_identity_edited_to_match_is_noticed(tmp_path):
    describe_run(tmp_path / "run", arguments())
    path = tmp_path / "run" / "run.json"
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(CorruptFileError, match="identity was changed"):
        read_run(tmp_path / "run")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"arguments": 3}'])
def test_a_damaged_description_is_told(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(CorruptFileError, match=r"run\.json: damaged"):
        read_run(tmp_path)


def test_a_folder_is_described_once(tmp_path):
    describe_run(tmp_path / "run", arguments())
    with pytest.raises(AllocgymError, match="holds a run already"):
        describe_run(tmp_path / "run", arguments(seed=9))
    assert read_run(tmp_path / "run")["seed"] == 3


def test_folders_named_by_the_second_do_not_collide(tmp_path):
    made = [new_folder(tmp_path) for _ in range(5)]
    assert len(set(made)) == 5 and all(folder.is_dir() for folder in made)


def test_a_deployment_of_another_seed_or_scenario_is_refused(problem, make_backend, tmp_path):
    live = Deployment(make_backend(horizon=4), catalogue.make("odm", problem), tmp_path, 1)
    live.run()
    live.close()
    for backend, seed, part in [
        (make_backend(horizon=4), 2, "seed"),
        (make_backend("simpy", horizon=4), 1, "backend"),
        (make_backend(scenario="skills"), 1, "scenario"),
    ]:
        with pytest.raises(AllocgymError, match=f"was begun with {part}"):
            Deployment(backend, catalogue.make("odm", problem), tmp_path, seed)
    Deployment(make_backend(horizon=4), catalogue.make("odm", problem), tmp_path, 1).close()


def test_a_simulator_that_no_longer_does_what_it_did_is_noticed(problem, make_backend, tmp_path):
    class Stop(Exception):
        pass

    def stop(period, *_):
        if period == 2:
            raise Stop

    agent = catalogue.make("odm", problem)
    live = Deployment(make_backend(horizon=4), agent, tmp_path, 1, progress=stop)
    with pytest.raises(Stop):
        live.run()
    live.close()
    live = Deployment(make_backend(horizon=5), catalogue.make("odm", problem), tmp_path, 1)
    with pytest.raises(AllocgymError, match="period 0 does not come out as it is in the journal"):
        live.run()
    live.close()


def command(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["allocgym", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_finished_run_is_reported_from_anywhere_without_its_back_end(
    tmp_path, agent_zip, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(agent_zip.parent)
    words = ("deploy", "data-mixing", "--agent", "mixer.zip", "--backend", "twin")
    assert not command(monkeypatch, *words, "--set", "horizon=4", "--folder", "../run")
    run = tmp_path / "run"
    before = (run / "journal.jsonl").read_bytes()
    said = capsys.readouterr().out.splitlines()[-1].split(";")[0]
    monkeypatch.setattr(
        deployment_core, "build", lambda *_, **__: pytest.fail("a back end was built")
    )
    shutil.rmtree(agent_zip.parent)
    monkeypatch.chdir("/")
    for verb in ("report", "resume"):
        (run / "report.html").unlink()
        assert not command(monkeypatch, verb, run)
        assert said in capsys.readouterr().out
        assert (run / "report.html").exists()
    assert (run / "journal.jsonl").read_bytes() == before
    lines = before.splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:-2]))
    assert command(monkeypatch, "resume", run) == 2
    assert "9 lines were written, 7 are there" in capsys.readouterr().err


def as_before(folder):
    """Make a run folder what the version before identities and chains would have left."""
    with Journal.reading(folder / "journal.jsonl") as journal:
        entries = journal.entries
    texts = []
    for entry in entries:
        entry.pop("events", None)
        texts.append(json.dumps(entry, separators=(",", ":")).encode())
    lines = [b"%08x %s\n" % (zlib.crc32(text), text) for text in texts]
    (folder / "journal.jsonl").write_bytes(b"".join(lines))
    described = json.loads((folder / "run.json").read_text())
    described.pop("identity")
    (folder / "run.json").write_text(json.dumps(described))
    books = json.loads((folder / "ledger.json").read_text())
    kept = {name: books[name] for name in ("granted", "spent", "wasted", "stopped")}
    (folder / "ledger.json").write_text(json.dumps(kept))
    return lines


@pytest.mark.parametrize("whole", [True, False], ids=["finished", "killed"])
def test_a_run_of_an_earlier_version_is_taken_up(tmp_path, whole):
    pytest.importorskip("matplotlib")
    run = tmp_path / "run"
    describe_run(run, arguments())
    expected = deploying.run(run, read_run(run), lambda line: None)
    lines = as_before(run)
    if not whole:
        (run / "ledger.json").unlink()
        (run / "journal.jsonl").write_bytes(b"".join(lines[:4]) + lines[4][:30])
    again = deploying.run(run, read_run(run), lambda line: None)
    assert again == expected
    assert deploying.report(run, read_run(run)) == expected


def test_checkpoints_of_an_earlier_version_are_believed(live, tmp_path):
    run = tmp_path / "run"
    steady = live.run(run)
    as_before(run)
    for card in run.glob("checkpoints/*.json"):
        card.unlink()
    again = live.run(run)
    assert again.backend.ledger.to_json() == steady.backend.ledger.to_json()


def spoil_newest(run, how):
    newest = run / "checkpoints" / f"period-{5:05d}.ckpt"
    card = newest.with_name(newest.name + ".json")
    if how == "cut short":
        newest.write_bytes(newest.read_bytes()[:-20])
    elif how == "no card":
        card.unlink()
    elif how == "a torn card":
        card.write_text(card.read_text()[:30])
    elif how == "an older one under its name":
        shutil.copy(newest.with_name("period-00004.ckpt"), newest)
    elif how == "an older one and its card":
        for file in ("period-00004.ckpt", "period-00004.ckpt.json"):
            shutil.copy(newest.with_name(file), newest.with_name(file.replace("4", "5")))
    elif how == "of another seed":
        for file in (newest, card):
            shutil.copy(run.parent / "other" / "checkpoints" / file.name, file)
    elif how == "all gone":
        shutil.rmtree(newest.parent)


@pytest.mark.parametrize(
    "how",
    [
        "cut short",
        "no card",
        "a torn card",
        "an older one under its name",
        "an older one and its card",
        "of another seed",
        "all gone",
    ],
)
def test_a_checkpoint_that_is_not_the_run_s_own_is_passed_over(live, tmp_path, how):
    run = tmp_path / "run"
    live.run(tmp_path / "other", seed=1)
    steady = live.run(run)
    entries = steady.controller.journal.entries
    journal = run / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    spoil_newest(run, how)
    again = live.run(run)
    assert again.controller.journal.entries == entries
    assert again.backend.ledger.to_json() == steady.backend.ledger.to_json()
    assert len(list(run.glob("checkpoints/*.ckpt"))) == 2


@pytest.mark.parametrize("lost", [2, 3, 5])
def test_a_journal_that_lost_what_a_checkpoint_has_seen_is_told(live, tmp_path, lost):
    run = tmp_path / "run"
    live.run(run)
    journal = run / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-lost]))
    with pytest.raises(AllocgymError, match=f"10 lines were written .*, {11 - lost} are left"):
        live.run(run)


def test_only_the_sums_and_the_newest_are_in_memory(problem, make_backend, tmp_path, monkeypatch):
    """A long run is taken up from its snapshot: what lies before it is not told again."""
    monkeypatch.setattr(controller, "SNAPSHOT", 4)
    backend = make_backend(scenario="scratch", horizon=10)
    told = []

    class Counted(type(catalogue.make("odm", problem))):
        def tell(self, outcome):
            told.append(int(outcome.period[0]))
            super().tell(outcome)

    def steer():
        return Controller(Counted(problem), backend.spec, tmp_path, 0, Guards(Counted(problem)))

    made = steer()
    made.tell(backend.reset(SEEDS))
    for period in range(10):
        asked = made.ask()
        made.close()
        told.clear()
        made = steer()
        first = 4 * ((period + 1) // 4)
        assert told == [p for p in range(first, period + 1) for _ in range(2)]
        assert made.ask().decision == asked.decision
        made.tell(backend.spend(asked.decision))
        assert made.spent == 320 * (period + 1) == sum(int(o.spent[0]) for o in made.outcomes)
        assert made.seconds == sum(float(o.seconds[0]) for o in made.outcomes)
    made.close()


@pytest.mark.parametrize(
    "how", ["cut short", "another journal", "edited", "gone", "of another seed"]
)
def test_a_snapshot_that_does_not_belong_is_passed_over(
    problem, make_backend, tmp_path, monkeypatch, how
):
    monkeypatch.setattr(controller, "SNAPSHOT", 3)

    def steer(folder, seed=0):
        agent = catalogue.make("random", problem)
        return Controller(agent, make_backend(horizon=8).spec, tmp_path / folder, seed)

    def fill(folder, seed):
        backend, made = make_backend(horizon=8), steer(folder, seed)
        made.tell(backend.reset(np.array([seed])))
        for _ in range(6):
            made.tell(backend.spend(made.ask().decision))
        made.close()
        return made

    fill("other", 1 if how == "of another seed" else 0)
    fill("run", 0)
    with steer("run") as made:
        expected = made.ask().decision
    path, other = (tmp_path / name / "snapshot.json" for name in ("run", "other"))
    if how == "cut short":
        path.write_text(path.read_text()[:-40])
    elif how == "edited":
        path.write_text(path.read_text().replace('\\"spent\\": 1920', '\\"spent\\": 1921'))
    elif how == "gone":
        path.unlink()
    elif how == "of another seed":
        path.write_text(other.read_text())
    journal = tmp_path / "run" / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    if how == "another journal":
        journal.write_bytes(b"".join(lines[:-5]))
        again = steer("run")
        assert len(again.outcomes) == 5 and again.spent == 4 * 320
    else:
        again = steer("run")
        assert again.ask().decision == expected and again.spent == 6 * 320
    again.close()


@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.id)
def test_an_agent_thawed_decides_like_the_one_that_was_frozen(entry):
    """Every named agent that can be written down at all."""
    made = build(entry.id, entry.vector_backend)
    problem = made.problem
    walker = catalogue.make(entry.fallback, problem)
    walker.begin(made.spec, 5)
    outcomes = [made.reset(SEEDS)]
    walker.tell(outcomes[0])
    for _ in range(4):
        outcomes.append(made.spend(walker.ask()))
        walker.tell(outcomes[-1])
    frozen = 0
    for given in catalogue.names(entry.id):
        try:
            agent, other = (catalogue.make(given, problem) for _ in range(2))
            if agent.clairvoyant:
                continue  # looks into the back end, which it has not been given
            agent.begin(made.spec, 5)
            for outcome in outcomes[:3]:
                agent.tell(outcome)
                agent.ask()
        except (AllocgymError, ImportError):
            continue  # needs something that is not installed or not given
        state = agent_state.freeze(agent)
        if state is None:
            continue
        frozen += 1
        other.begin(made.spec, 5)
        agent_state.thaw(other, json.loads(json.dumps(state)))
        for outcome in outcomes[3:]:
            agent.tell(outcome)
            other.tell(outcome)
            assert agent.ask().to_json() == other.ask().to_json(), given
    assert frozen > 0 or entry.id == "activation-plan"


def test_what_cannot_be_written_down_has_no_state(problem, make_backend):
    class Holder(Agent):
        def _start(self):
            self.held = lambda: None

        def ask(self):
            raise AssertionError

    agent = Holder(problem)
    agent.begin(make_backend().spec)
    assert agent_state.freeze(agent) is None
    policy = PolicyAgent(problem, policy=agent)
    policy.begin(make_backend().spec)
    assert agent_state.freeze(policy) is not None
    with pytest.raises(CorruptFileError, match="does not fit"):
        agent_state.thaw(policy, {"_memory": {"record": "os:system", "fields": {}}})


def test_arrays_keep_their_bits_and_their_order_in_memory():
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = [whole, whole.T, whole.transpose(1, 0, 2), whole[:, ::2], np.array(3.5), whole[:0]]
    for array in [*arrays, np.array([np.nan, -np.inf, -0.0]), np.array(["a", "bc"])]:
        back = agent_state.thaw_value(json.loads(json.dumps(agent_state.freeze_value(array))))
        assert back.tobytes() == array.tobytes() and back.dtype == array.dtype
        assert back.shape == array.shape
        order = [np.argsort([-s for s in a.strides], kind="stable").tolist() for a in (back, array)]
        assert array.size < 2 or order[0] == order[1]
    rng = np.random.default_rng(1)
    back = agent_state.thaw_value(json.loads(json.dumps(agent_state.freeze_value(rng))))
    assert back.random(5).tolist() == rng.random(5).tolist()
