"""As a user without a home, from a read-only installation: nothing fails, nothing is left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import allocgym

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc"),
]
PARTS = ("envs", "simulators", "agents", "real_backend", "benchmarks")


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A copy of the package that not even root can write compiled code into."""
    package = tmp_path_factory.mktemp("site") / "allocgym"
    package.mkdir()
    home = Path(allocgym.__file__).parent
    leave = shutil.ignore_patterns("__pycache__", "results")
    for name in PARTS:
        shutil.copytree(home / name, package / name, ignore=leave)
    for name in ("__init__.py", "__main__.py"):
        shutil.copy(home / name, package)
    for folder in [package, *(p for p in package.rglob("*") if p.is_dir())]:
        (folder / "__pycache__").write_text("")
        folder.chmod(0o555)
    yield package.parent
    for folder in [package, *(p for p in package.rglob("*") if p.is_dir())]:
        folder.chmod(0o755)


@pytest.mark.parametrize("home", [None, "/proc/nope"], ids=["no home", "a home that is not there"])
def test_the_command_line_works_and_leaves_nothing_behind(tmp_path, installed, home):
    pytest.importorskip("stable_baselines3")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    hidden = ("HOME", "XDG_CACHE_HOME", "ALLOCGYM_CACHE", "NUMBA_CACHE_DIR", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {
        "TMPDIR": str(temporary),
        "PYTHONPATH": str(installed),
        "PYTHONDONTWRITEBYTECODE": "1",
        # A home that can be written would be used: this user of the machine may have one.
        "XDG_CACHE_HOME": str(temporary / "xdg") if home is None else "/proc/nope",
    }
    if home is not None:
        environment["HOME"] = home
    words = "train population --trainer ppo --iterations 2 --set batch=4 --set horizon=4"
    ran = subprocess.run(
        [sys.executable, "-m", "allocgym", *words.split(), "--out", str(tmp_path / "a.zip")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "temporary"]
    cache = "xdg" if home is None else f"allocgym-{os.getuid()}"
    # torch makes an empty folder of its own, named after the user.
    left = {p.name for p in temporary.iterdir() if not p.name.startswith("torchinductor_")}
    assert left == {cache}
    if home is not None:
        assert list((temporary / cache).rglob("*.nbi"))
