import json
import os
import signal
import subprocess
import sys

import pytest

from allocgym.envs.core import ownership
from allocgym.envs.core.errors import OwnedError, WriteError
from allocgym.envs.core.journal import Journal
from allocgym.envs.core.ownership import Owner, myself

HOLD = """
import sys
from allocgym.envs.core.ownership import Owner
owner = Owner(sys.argv[1])
print("owned", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that owns a folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"owned\n"
        yield process
        process.kill()


def test_a_folder_has_one_owner_and_the_second_comer_is_told_who(tmp_path, other):
    with pytest.raises(OwnedError, match=f"process {other.pid} on .* is at work there"):
        Owner(tmp_path / "run")
    with pytest.raises(OwnedError, match=str(other.pid)):
        Journal(tmp_path / "run" / "journal.jsonl")
    assert not (tmp_path / "run" / "journal.jsonl").exists()


def test_a_folder_is_taken_over_when_its_owner_was_killed(tmp_path, other):
    other.kill()
    assert other.wait() == -signal.SIGKILL
    left = json.loads((tmp_path / "run" / "owner.json").read_text())
    assert left["pid"] == other.pid
    with Owner(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / "owner.json").read_text()) == myself()


def test_two_of_one_process_do_not_share_a_folder(tmp_path):
    first = Owner(tmp_path)
    with pytest.raises(OwnedError, match=f"process {os.getpid()} on .*, this one, is at work"):
        Owner(tmp_path)
    Owner(tmp_path, "another").release()
    first.release()
    first.release()
    Owner(tmp_path).release()
    assert not (tmp_path / "owner.json").exists()


def test_a_lock_that_a_file_system_grants_to_everybody_is_not_believed(tmp_path, other):
    card = tmp_path / "run" / "owner.json"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "owner.json").write_text(card.read_text())
    with pytest.raises(OwnedError, match=str(other.pid)):
        Owner(elsewhere)


@pytest.mark.parametrize(
    "change", [{"started": "1"}, {"host": "elsewhere"}, {"pid": -1}, {"pid": "x"}], ids=str
)
def test_a_number_given_out_again_is_not_the_owner(tmp_path, other, change):
    card = json.loads((tmp_path / "run" / "owner.json").read_text()) | change
    (tmp_path / "owner.json").write_text(json.dumps(card))
    Owner(tmp_path).release()


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_a_torn_card_stops_nobody(tmp_path, text):
    (tmp_path / "owner.json").write_text(text)
    Owner(tmp_path).release()


def test_the_start_of_a_process_tells_it_from_others():
    assert ownership.started(os.getpid()) == ownership.started(os.getpid())
    assert ownership.started(2**22 + 1) is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        Owner(tmp_path / "file" / "run")
