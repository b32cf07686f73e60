"""One deployment from its description: what `deploy`, `resume` and a fleet on Ray have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from allocgym.agents.core import catalogue
from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Guards
from allocgym.agents.core.report import deployment_report
from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Backend

Say = Callable[[str], None]
Permit = Callable[[str, int], bool]


def check(arguments: dict[str, Any]) -> None:
    """Build all that a description names, so that a mistake is told before anything is written."""
    made = _backend(arguments)
    try:
        for name in (arguments["agent"], arguments["fallback"], arguments["shadow"]):
            if name is not None:
                catalogue.make(name, made.problem)
    finally:
        made.close()


def _backend(a: dict[str, Any]) -> Backend:
    return build(a["problem"], a["backend"], a["scenario"], 1, **a["overrides"])


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
    made = _backend(a)
    problem = made.problem
    guards = Guards(
        fallback=catalogue.make(a["fallback"], problem),
        max_change=a["max_change"],
        max_seconds=a["max_seconds"],
        max_cost=a["max_cost"],
    )
    incumbent = catalogue.make(a["shadow"], problem) if a["shadow"] else None
    names = made.spec.claimants

    def progress(period: int, horizon: int, keyed: Any, outcome: Any) -> None:
        say(f"period {period}/{horizon}  {problem.status(keyed.decision, outcome, names)}")
        for note in keyed.interventions:
            say(f"  guard: {note}")

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
        ledger = made.ledger.to_json()
        report = deployment_report(controller, folder, names, ledger)
    finally:
        live.controller.journal.close()
        made.close()
    return {
        "objective": float(controller.agent.memory.objective[0]),
        "ledger": ledger,
        "periods": len(controller.outcomes) - 1,
        "stopped": live.stopped,
        "report": str(report),
    }
