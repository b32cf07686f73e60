"""Faults are counted by kind and by what became of them, and the counts are printed at the end."""

import collections

import pytest

COUNTS = collections.Counter()


@pytest.fixture
def count():
    """Count one fault of a kind: ``went on`` or ``refused``."""

    def one(kind, became):
        COUNTS[kind, became] += 1

    return one


def pytest_terminal_summary(terminalreporter):
    if not COUNTS:
        return
    kinds = sorted({kind for kind, _ in COUNTS})
    terminalreporter.section(f"{sum(COUNTS.values())} faults")
    terminalreporter.write_line(f"{'kind':44s} {'went on':>8s} {'refused':>8s}")
    for kind in kinds:
        on, refused = (COUNTS[kind, became] for became in ("went on", "refused"))
        terminalreporter.write_line(f"{kind:44s} {on:8d} {refused:8d}")
