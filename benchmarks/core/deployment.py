"""One deployment from its description: what `deploy`, `resume` and a fleet on Ray have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from allocgym.agents.core import catalogue
from allocgym.agents.core.controller import Controller
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Guards
from allocgym.agents.core.history import History
from allocgym.agents.core.report import deployment_report
from allocgym.envs.core.builder import build, build_problem
from allocgym.envs.core.contracts import Backend, Problem
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.envs.core.untrusted import loads

Say = Callable[[str], None]
Permit = Callable[[str, int], bool]


def check(arguments: dict[str, Any]) -> None:
    """Build all that a description names, so that a mistake is told before anything is written."""
    made = _backend(arguments)
    try:
        for name in (arguments["agent"], arguments["shadow"]):
            if name is not None:
                catalogue.make(name, made.problem)
        _guards(made.problem, arguments).check(made.problem)
    finally:
        made.close()


def _backend(a: dict[str, Any]) -> Backend:
    return build(a["problem"], a["backend"], a["scenario"], 1, **a["overrides"])


def _guards(problem: Problem, a: dict[str, Any]) -> Guards:
    return Guards(
        fallback=catalogue.make(a["fallback"], problem),
        max_change=a["max_change"],
        max_seconds=a["max_seconds"],
        max_cost=a["max_cost"],
        max_think=a.get("max_think"),
    )


def run(folder: Path, a: dict[str, Any], say: Say, permit: Permit | None = None) -> dict[str, Any]:
    """Run, or take up again, the deployment of a run folder.

    Args:
        folder: its journal and checkpoints; the report is written there.
        a: arguments as in ``run.json``.
        say: told one line a period.
        permit: asked (key, units) before each decision is carried out; False stops the run.

    Returns:
        Final objective, ledger, periods, why it stopped, and where the report is.
    """
    if finished(folder) and "claimants" in _books(folder):
        return report(folder, a)
    made = _backend(a)
    problem = made.problem
    guards = _guards(problem, a)
    incumbent = catalogue.make(a["shadow"], problem) if a["shadow"] else None
    names = made.spec.claimants

    def progress(period: int, horizon: int, keyed: Any, outcome: Any) -> None:
        say(f"period {period}/{horizon}  {problem.status(keyed.decision, outcome, names)}")
        for note in keyed.interventions:
            say(f"  guard: {note}")

    try:
        live = Deployment(
            made,
            catalogue.make(a["agent"], problem),
            folder,
            a["seed"],
            guards,
            incumbent,
            progress,
            permit,
        )
        try:
            controller = live.run()
            ledger = _books(folder)
            page = deployment_report(controller, folder, names, ledger)
        finally:
            live.close()
    finally:
        made.close()
    return _result(controller, ledger, page)


def finished(folder: Path) -> bool:
    """Whether a run came to its end: what is left is to report it."""
    return (folder / "ledger.json").exists() and _books(folder).get("stopped", "") is None


def report(folder: Path, a: dict[str, Any]) -> dict[str, Any]:
    """Write the report of a run from its journal and its books; no back end is built.

    Args:
        folder: the run's.
        a: arguments as in ``run.json``.

    Returns:
        As `run`.

    Raises:
        AllocgymError: there are no books, or they are of another journal.
    """
    ledger = _books(folder)
    problem = build_problem(a["problem"], a["backend"], a["scenario"], **a["overrides"])
    history = History.of(problem, folder)
    if "claimants" not in ledger:
        return run(folder, a, lambda line: None)  # of an earlier version, which named none
    if ledger["lines"] != len(history.journal):
        raise AllocgymError(
            f"{history.journal.path}: {ledger['lines']} lines were written, {len(history.journal)} are "
            f"there; put the file back"
        )
    page = deployment_report(history, folder, ledger["claimants"], ledger)
    return _result(history, ledger, page)


def _books(folder: Path) -> dict[str, Any]:
    path = folder / "ledger.json"
    try:
        books: dict[str, Any] = loads(path.read_text())
        return {**books, "granted": books["granted"]}
    except FileNotFoundError:
        raise AllocgymError(
            f"{folder}: not a finished run; `allocgym resume {folder}` first"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptFileError(
            f"{path}: damaged ({error}); remove it and `allocgym resume {folder}`"
        ) from error


def _result(run: Controller | History, ledger: dict[str, Any], page: Path) -> dict[str, Any]:
    return {
        "objective": ledger["objective"],
        "ledger": {name: ledger[name] for name in ("granted", "spent", "wasted")},
        "periods": len(run.outcomes) - 1,
        "stopped": ledger["stopped"],
        "report": str(page),
    }
