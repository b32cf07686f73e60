import os
import stat
import subprocess
import sys

import pytest

from allocgym.envs.core.cache import cache_folder
from allocgym.envs.core.errors import WriteError

NOWHERE = "/proc/nope"
posix = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")


@pytest.fixture
def place(monkeypatch, tmp_path):
    """No cache is named, no home can be written, temporary files have a place."""
    for name in ("ALLOCGYM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", NOWHERE)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path


def test_the_first_that_is_named_and_can_be_written(place, monkeypatch):
    monkeypatch.setenv("HOME", str(place / "home"))
    assert cache_folder() == place / "home" / ".cache" / "allocgym"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == place / "home" / ".cache" / "allocgym"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "xdg"))
    assert cache_folder() == place / "xdg" / "allocgym"
    monkeypatch.setenv("ALLOCGYM_CACHE", str(place / "own"))
    assert cache_folder() == place / "own"
    assert cache_folder(place / "given") == place / "given"
    assert (place / "given").is_dir()


@posix
def test_without_a_home_it_is_a_folder_of_the_users_own(place):
    found = cache_folder()
    assert found == place / "temporary" / f"allocgym-{os.getuid()}"
    assert stat.S_IMODE(found.stat().st_mode) == 0o700
    assert cache_folder() == found


@posix
@pytest.mark.parametrize("how", ["link", "open", "file"])
def test_a_folder_that_others_may_have_written_is_refused(place, how):
    folder = place / "temporary" / f"allocgym-{os.getuid()}"
    if how == "link":
        (place / "theirs").mkdir(mode=0o700)
        folder.symlink_to(place / "theirs")
    elif how == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises(WriteError, match="set ALLOCGYM_CACHE to a"):
        cache_folder()


@posix
def test_a_cache_that_was_asked_for_is_not_silently_another(place, monkeypatch):
    monkeypatch.setenv("ALLOCGYM_CACHE", NOWHERE)
    with pytest.raises(WriteError, match="cache_dir: /proc/nope cannot be made"):
        cache_folder()


@posix
@pytest.mark.parametrize("cached", [True, False])
def test_a_kernel_compiles_beside_a_module_that_cannot_be_written_to(place, cached):
    """As in a read-only installation; ``__pycache__`` is a file, which stops even root."""
    (place / "__pycache__").write_text("")
    (place / "looped.py").write_text(
        "from allocgym.envs.core.kernels import kernel\n"
        "@kernel\n"
        "def double(x):\n"
        "    return 2 * x\n"
        "print(double(21))\n"
    )
    environment = {
        **os.environ,
        "TMPDIR": str(place / "temporary"),
        "PYTHONPATH": os.pathsep.join([str(place), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if not cached:
        environment["ALLOCGYM_CACHE"] = NOWHERE
    ran = subprocess.run(
        [sys.executable, "-c", "import looped"], env=environment, capture_output=True, text=True
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "42"), ran.stderr
    kept = list((place / "temporary").rglob("looped.double*.nbi"))
    assert bool(kept) == cached
