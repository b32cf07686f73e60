"""What the contract tests cannot play on a machine is skipped; at the end, what they held is counted."""

import collections

import pytest

from allocgym.envs.core.errors import FileNeededError
from allocgym.simulators.core.public_data import DataMissingError

HELD = collections.Counter()


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    try:
        return (yield)
    except (DataMissingError, FileNeededError) as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    case = getattr(item, "callspec", None) and item.callspec.params.get("case")
    if call.when == "call" and report.passed and case is not None:
        properties = [("held", (case.entry.id, case.backend, item.originalname))]
        report.user_properties.extend(properties)
    return report


def pytest_terminal_summary(terminalreporter):
    held = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "held"
    ]
    if not held:
        return
    ids, places, properties = ({tuple(h[:n]) for h in held} for n in (1, 2, 3))
    terminalreporter.write_line(
        f"contract: {len(held)} checks held: {len(ids)} ids, {len(places)} ids x back ends, "
        f"{len(properties)} ids x back ends x properties"
    )
