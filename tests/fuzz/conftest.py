"""Anything may be in a file, an action or an argument: the worst is a sentence that says so.

Each test runs a few hundred cases, ``make fuzz`` ten thousand, within one gigabyte and five seconds a
case. While a case runs nothing may be executed, unpickled, connected to or written.
"""

import contextlib
import os
import resource
import signal
import sys

import pytest

CASES = int(os.environ.get("ALLOCGYM_FUZZ", "0"))
FORBIDDEN = {
    "subprocess.Popen",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.symlink",
    "socket.connect",
    "pickle.find_class",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_watched: list[list[str]] = []


def _watch(event, arguments):
    if not _watched:
        return
    if event == "open" and arguments[2] is not None and arguments[2] & WRITING:
        _watched[-1].append(f"writes {arguments[0]!r}")
    elif event in FORBIDDEN:
        _watched[-1].append(event)


sys.addaudithook(_watch)


@contextlib.contextmanager
def harmless():
    """What is inside runs no code and writes nothing; in the long form, it ends within five seconds."""
    done = []

    def late(*_):
        raise AssertionError("more than five seconds")

    before = signal.signal(signal.SIGALRM, late)
    _watched.append(done)
    if CASES:
        signal.alarm(5)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        _watched.pop()
    assert not done, done


@pytest.fixture(scope="session", name="harmless")
def _harmless():
    return harmless


@pytest.fixture(autouse=True)
def _little_memory():
    """In the long form, a gigabyte more for each test than is taken already."""
    if not CASES:
        yield
        return
    with open("/proc/self/statm") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (taken + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def pytest_collection_modifyitems(items):
    for item in items:
        if "fuzz" in item.path.parts:
            item.add_marker(pytest.mark.fuzz)
            if CASES:
                item.add_marker(pytest.mark.timeout(0))
