"""Hundreds of small accidents to run folders, seeded, in this process.

A run is recorded at every moment at which a kill can find it: after each line of the journal, after
each checkpoint, after each file that vouches for one. Every accident starts from such a folder. What
must hold each time: the run goes on and ends as the undisturbed one, bit for bit; or it is refused in
one sentence, where going on would need what was lost. No budget is overspent, no period counted twice.
"""

import dataclasses
import json
import os
import resource
import shutil
import time

import numpy as np
import pytest

from allocgym.agents.core import agent_file
from allocgym.agents.core.run_folder import Checkpoints, describe_run, read_run
from allocgym.agents.data_mixing.heuristics import Natural
from allocgym.benchmarks.core import deployment as deploying
from allocgym.envs.core.errors import AllocgymError, OwnedError, WriteError
from allocgym.envs.core.journal import Journal
from allocgym.envs.core.ownership import Owner

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
SEEDS = range(12)
JOURNAL = "journal.jsonl"


class Killed(BaseException):
    """As a kill would: nothing is caught, nothing is cleaned up."""


class Moments:
    """Folders as kills would leave them, and what the undisturbed run came to."""

    def __init__(self, live, base, kept):
        self.live, self.kept = live, kept
        self.folders = []
        run = base / "steady"
        with pytest.MonkeyPatch.context() as patch:
            for owner, name in ((Journal, "append"), (Checkpoints, "vouch")):
                patch.setattr(owner, name, self._after(getattr(owner, name), run, base))
            ended = live.run(run, kept=kept)
        self.entries = ended.controller.journal.entries
        self.ledger = (run / "ledger.json").read_text()
        self.finished = run

    def _after(self, work, run, base):
        def worked(one, *given):
            if work.__name__ == "vouch":
                self._keep(run, base)  # the checkpoint is there, what vouches for it is not
            work(one, *given)
            self._keep(run, base)

        return worked

    def _keep(self, run, base):
        folder = base / f"moment-{len(self.folders):03d}"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("owner.*"))
        self.folders.append(folder)

    def some(self, rng, folder, fewest=0, most=99):
        """Copy a moment with so many lines of the journal."""
        fit = [f for f in self.folders if fewest <= lines_of(f) <= most]
        return shutil.copytree(fit[rng.integers(len(fit))], folder)

    def goes_on(self, folder):
        """Take the run up, and demand that it ends as it would have."""
        ended = self.live.run(folder, kept=self.kept)
        assert ended.controller.journal.entries == self.entries
        assert (folder / "ledger.json").read_text() == self.ledger
        self.keeps_books(folder)

    def keeps_books(self, folder):
        with Journal.reading(folder / JOURNAL) as journal:
            entries = journal.entries
        keys = [e["key"] for e in entries if e["kind"] == "decision"]
        assert keys == [f"period-{k}" for k in range(len(keys))]
        spent = sum(e["data"]["spent"]["data"][0] for e in entries if e["kind"] == "outcome")
        granted = json.loads(self.ledger)["granted"][0]
        assert spent <= granted
        if (folder / "ledger.json").exists():
            assert json.loads((folder / "ledger.json").read_text())["spent"] == [spent]

    def goes_on_or_refuses(self, folder):
        """As `goes_on`, or one sentence that says what to do, and nothing is changed by it."""
        before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        try:
            self.goes_on(folder)
        except AllocgymError as error:
            assert is_a_sentence(error)
            after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
            assert {p: after[p] for p in before} == before
            return "refused"
        return "went on"


def is_a_sentence(error):
    text = str(error)
    return "\n" not in text and 20 < len(text) < 600 and "Traceback" not in text


def lines_of(folder):
    return (folder / JOURNAL).read_bytes().count(b"\n")


@pytest.fixture(scope="module", params=[True, False], ids=["checkpoints", "none"])
def moments(request, live, tmp_path_factory):
    return Moments(live, tmp_path_factory.mktemp("moments"), request.param)


def edit(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


def test_every_moment_of_a_run_can_be_its_last(moments, tmp_path, count):
    assert len(moments.folders) == 2 * 5 + 1 + 2 * 5 * moments.kept
    for number, folder in enumerate(moments.folders):
        moments.goes_on(shutil.copytree(folder, tmp_path / str(number)))
        count("killed at any moment", "went on")


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_again_during_resume_and_once_more(moments, tmp_path, monkeypatch, count, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run")
    append = Journal.append
    for _ in range(2):
        left = iter(range(int(rng.integers(0, 3)), -1, -1))

        def until(self, entry, left=left):
            if next(left) == 0:
                raise Killed
            append(self, entry)

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "append", until)
            try:
                moments.live.run(folder, kept=moments.kept)
            except Killed:
                (folder / "ledger.json").unlink(missing_ok=True)
    moments.goes_on(folder)
    count("killed twice more, during resume", "went on")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_half_written(moments, tmp_path, count, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run")
    line = moments.finished.joinpath(JOURNAL).read_bytes().splitlines(keepends=True)
    written = lines_of(folder)
    if written < len(line):
        with open(folder / JOURNAL, "ab") as file:
            file.write(line[written][: rng.integers(1, len(line[written]))])
    moments.goes_on(folder)
    count("a line half written", "went on")


LOSSES = {
    "the last line lost": lambda a, k: a[:-1],
    "the last two lines lost": lambda a, k: a[:-2],
    "two lines lost": lambda a, k: a[:k] + a[k + 2 :],
    "a line lost": lambda a, k: a[:k] + a[k + 1 :],
    "a line doubled": lambda a, k: a[: k + 1] + a[k:],
    "two lines in the wrong order": lambda a, k: a[:k] + a[k : k + 2][::-1] + a[k + 2 :],
    "a byte changed": lambda a, k: [*a[:k], a[k].replace(b"data", b"dada", 1), *a[k + 1 :]],
    "the journal empty": lambda a, k: [],
    "bytes that are no text at the end": lambda a, k: [*a, b"\x00\xff" * 50],
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_journal_that_is_not_as_it_was_written(moments, tmp_path, count, kind, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run", fewest=3)
    place = int(rng.integers(0, lines_of(folder) - 1))
    edit(folder / JOURNAL, lambda lines: LOSSES[kind](lines, place))
    count(f"journal: {kind}", moments.goes_on_or_refuses(folder))


def cards(folder):
    return sorted((folder / "checkpoints").glob("*.json"))


def files(folder):
    return sorted((folder / "checkpoints").glob("*.ckpt"))


def foreign(folder, moments, rng):
    other = moments.live.run(folder.parent / "other", seed=1).folder
    for file in (files(folder)[-1], cards(folder)[-1]):
        shutil.copy(sorted(other.glob(f"checkpoints/*{file.suffix}"))[-1], file)


def cut(path, rng):
    path.write_bytes(path.read_bytes()[: rng.integers(0, path.stat().st_size)])


def flipped(path, rng):
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 0x55
    path.write_bytes(bytes(data))


def renamed(folder, moments, rng):
    for file in (files(folder)[-1], cards(folder)[-1]):
        file.rename(file.with_name(file.name.replace("period-0000", "period-0001")))


HARMS = {
    "cut short": lambda f, m, rng: cut(files(f)[-1], rng),
    "both cut short": lambda f, m, rng: [cut(file, rng) for file in files(f)],
    "a byte changed": lambda f, m, rng: flipped(files(f)[-1], rng),
    "missing": lambda f, m, rng: files(f)[-1].unlink(),
    "its card missing": lambda f, m, rng: cards(f)[-1].unlink(),
    "its card cut short": lambda f, m, rng: cut(cards(f)[-1], rng),
    "of another seed": foreign,
    "under another name": renamed,
    "an older one under the newest name": lambda f, m, rng: shutil.copy(files(f)[0], files(f)[-1]),
    "all of them gone": lambda f, m, rng: shutil.rmtree(f / "checkpoints"),
}


@pytest.mark.parametrize("moments", [True], indirect=True, ids=["checkpoints"])
@pytest.mark.parametrize("kind", HARMS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_checkpoint_that_is_not_what_it_was(moments, tmp_path, count, kind, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run", fewest=6)
    HARMS[kind](folder, moments, rng)
    moments.goes_on(folder)
    count(f"checkpoint: {kind}", "went on")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_full_disk(moments, tmp_path, count, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run", most=10)
    most = (moments.finished / JOURNAL).stat().st_size
    size = int(rng.integers((folder / JOURNAL).stat().st_size, most))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(WriteError, match="cannot be written") as told:
            moments.live.run(folder, kept=moments.kept)
        assert is_a_sentence(told.value)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    count("the disk is full", "refused")
    moments.goes_on(folder)


@pytest.mark.skipif(not hasattr(os, "seteuid") or os.geteuid() != 0, reason="needs another user")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_folder_that_may_not_be_written(moments, tmp_path, count, seed):
    folder = moments.some(np.random.default_rng(seed), tmp_path / "run")
    for above in (tmp_path, *list(tmp_path.parents)[:3]):
        if above.name.startswith(("pytest", "test")):
            above.chmod(0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(WriteError) as told:
            moments.live.run(folder, kept=moments.kept)
        assert is_a_sentence(told.value)
    finally:
        os.seteuid(0)
    count("the folder may not be written", "refused")
    moments.goes_on(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_clock_that_goes_back(moments, tmp_path, monkeypatch, count, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run")
    for file in folder.rglob("*"):
        os.utime(file, (2e9, 2e9))
    now = [4e9]

    def back():
        now[0] -= float(rng.integers(0, 10**6))
        return now[0]

    monkeypatch.setattr(time, "time", back)
    moments.goes_on(folder)
    count("the clock goes back", "went on")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_second_owner(moments, tmp_path, count, seed):
    folder = moments.some(np.random.default_rng(seed), tmp_path / "run")
    with Owner(folder), pytest.raises(OwnedError, match="is at work there") as told:
        moments.live.run(folder, kept=moments.kept)
    assert is_a_sentence(told.value)
    count("a second owner", "refused")
    moments.goes_on(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_files_beside_the_journal_that_are_nonsense(moments, tmp_path, count, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run")
    for name in (
        "owner.json",
        "snapshot.json",
        "checkpoints/notes.ckpt",
        "checkpoints/period-x.ckpt",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(rng.integers(0, 256, 200, np.uint8)))
    moments.goes_on(folder)
    count("nonsense beside the journal", "went on")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_description_damaged_or_of_another_run(moments, tmp_path, count, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run")
    whole = (folder / "run.json").read_bytes()
    with pytest.raises(AllocgymError) as told:
        moments.live.run(folder, seed=1 + seed, kept=moments.kept)
    assert "begun with seed 0" in str(told.value) and is_a_sentence(told.value)
    count("another seed", "refused")
    (folder / "run.json").write_bytes(whole[: rng.integers(0, len(whole) - 2)])
    with pytest.raises(AllocgymError) as told:
        moments.live.run(folder, kept=moments.kept)
    assert "run.json: damaged" in str(told.value) and is_a_sentence(told.value)
    count("run.json cut short", "refused")
    (folder / "run.json").write_bytes(whole)
    moments.goes_on(folder)


def nudged(outcome, **fields):
    return dataclasses.replace(outcome, **fields)


TELLS = {
    "doubled": lambda o, old: old,
    "late": lambda o, old: nudged(o, period=o.period - 1),
    "too early": lambda o, old: nudged(o, period=o.period + 1),
    "NaN": lambda o, old: nudged(o, losses=np.where(o.instance.present, np.nan, o.losses)),
    "infinite": lambda o, old: nudged(o, losses=o.losses + np.inf),
    "a missing metric": lambda o, old: nudged(o, losses=None),
    "a metric too few": lambda o, old: nudged(o, losses=o.losses[:, :-1]),
    "a metric too many": lambda o, old: nudged(o, losses=np.repeat(o.losses, 2, 1)),
    "of another decision": lambda o, old: nudged(o, units=np.roll(o.units, 1, 1)),
    "more than was decided": lambda o, old: nudged(o, spent=o.spent * 2),
    "plain JSON": lambda o, old: o.to_json(),
}


@pytest.mark.parametrize("kind", TELLS)
@pytest.mark.parametrize("seed", range(3))
def test_a_tell_that_cannot_be_right(moments, tmp_path, monkeypatch, count, kind, seed):
    rng = np.random.default_rng(seed)
    folder = moments.some(rng, tmp_path / "run", fewest=2)
    live = moments.live.deployment(folder, kept=moments.kept)
    tell = live.controller.tell
    told = [0]

    def disturbed(outcome):
        path = folder / JOURNAL
        before = path.read_bytes()
        with pytest.raises(AllocgymError) as refused:
            tell(TELLS[kind](outcome, live.controller.outcomes[-1]))
        assert is_a_sentence(refused.value) and path.read_bytes() == before
        told[0] += 1
        count(f"tell: {kind}", "refused")
        tell(outcome)

    monkeypatch.setattr(live.controller, "tell", disturbed)
    try:
        live.run()
    finally:
        live.close()
    assert told[0] or lines_of(moments.folders[-1]) == 11
    assert live.controller.journal.entries == moments.entries
    moments.keeps_books(folder)


class Unsteady(Natural):
    """Fails now and then, each time in another way."""

    name = "unsteady"

    def __init__(self, problem, seed):
        super().__init__(problem)
        self.chance = seed

    def _at(self, place):
        return np.random.default_rng([self.chance, place, int(self.outcome.period[0])]).random()

    def _heard(self):
        if self._at(1) < 0.2:
            raise MemoryError("out of memory")

    def ask(self):
        decision, what = super().ask(), self._at(2)
        if what < 0.2:
            raise RuntimeError("the device is gone")
        if what < 0.4:
            return dataclasses.replace(decision, units=decision.units * np.nan)
        if what < 0.5:
            return dataclasses.replace(decision, units=decision.units + 1)
        return decision if what < 0.9 else None


@pytest.mark.parametrize("seed", range(20))
def test_an_agent_that_fails_now_and_then(live, problem, tmp_path, count, seed):
    """Stopped after each period, and compared with the run that was not."""
    steady = live.run(tmp_path / "steady", agent=Unsteady(problem, seed), max_change=0.1)
    expected = steady.controller.journal.entries
    assert steady.controller.spent == steady.backend.ledger.granted[0]
    for event in steady.controller.history.events():
        if event.kind == "agent failed":
            count("an agent that fails", "went on")
    stopped = tmp_path / "stopped"
    for period in range(live.HORIZON):
        one = live.deployment(stopped, agent=Unsteady(problem, seed), max_change=0.1)

        def stop(done, *_, period=period):
            if done > period:
                raise Killed

        one.progress = stop
        with pytest.raises(Killed):
            one.run()
        one.close()
        count("killed under a failing agent", "went on")
    again = live.run(stopped, agent=Unsteady(problem, seed), max_change=0.1)
    assert again.controller.journal.entries == expected


@pytest.mark.parametrize("most", [0, 1, 319, 320, 700, 1599])
def test_a_limit_on_cost_holds_through_kills(live, tmp_path, count, most):
    folder = tmp_path / "run"
    for _ in range(3):
        ended = live.run(folder, max_cost=most)
        assert ended.controller.spent == 320 * (most // 320)
        assert "max_cost" in ended.stopped
        count("a limit on cost, resumed", "went on")


@pytest.mark.parametrize("what", ["agent", "seed", "scenario", "overrides"])
def test_a_run_is_not_gone_on_with_as_another(tmp_path, problem, count, what):
    path = tmp_path / "mixer.zip"
    agent_file.save(path, problem, "odm", {})
    none = dict.fromkeys(("max_change", "max_seconds", "max_cost", "max_think", "shadow"))
    given = {"problem": "data-mixing", "agent": str(path), "backend": "twin", "scenario": "skills"}
    given |= {"seed": 0, "fallback": "uniform", "overrides": {"horizon": 4}, **none}
    run = tmp_path / "run"
    describe_run(run, given)
    agent_file.save(path, problem, "natural", {})  # the run has its own copy
    deploying.run(run, read_run(run), lambda line: None)
    count("the agent file overwritten, its copy not", "went on")
    described = json.loads((run / "run.json").read_text())
    if what == "agent":
        shutil.copy(path, run / described["arguments"]["agent"])
    else:
        described["arguments"][what] = {"seed": 1, "scenario": "scratch", "overrides": {}}[what]
        (run / "run.json").write_text(json.dumps(described))
    with pytest.raises(AllocgymError, match=f"begun with {what}") as told:
        read_run(run)
    assert is_a_sentence(told.value)
    count(f"changed: {what}", "refused")
