"""One deployment from its description: what `deploy`, `resume` and a fleet on Ray have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from allocgym.agents.core.deployment import Deployment
from allocgym.agents.core.guards import Guards
from allocgym.agents.core.report import deployment_report
from allocgym.benchmarks.core.front import front
from allocgym.envs.core import registry

Say = Callable[[str], None]
Permit = Callable[[str, int], bool]


def check_agents(arguments: dict[str, Any]) -> None:
    """Build every agent a description names, so that a mistake is told before anything is written."""
    desk = front(arguments["problem"])
    problem = desk.make_problem(arguments["backend"], arguments["overrides"])
    for name in (arguments["agent"], arguments["fallback"], arguments["shadow"]):
        if name is not None:
            desk.make_agent(name, problem)


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
    desk = front(a["problem"])
    problem = desk.make_problem(a["backend"], a["overrides"])
    made = registry.make_backend(problem, a["backend"], scenario=a["scenario"], **a["overrides"])
    guards = Guards(
        fallback=desk.make_agent(a["fallback"], problem),
        max_change=a["max_change"],
        max_seconds=a["max_seconds"],
        max_cost=a["max_cost"],
    )
    incumbent = desk.make_agent(a["shadow"], problem) if a["shadow"] else None
    names = made.spec.claimants

    def progress(period: int, horizon: int, keyed: Any, outcome: Any) -> None:
        say(f"period {period}/{horizon}  {desk.status(made.spec, keyed, outcome)}")
        for note in keyed.interventions:
            say(f"  guard: {note}")

    live = Deployment(
        made,
        desk.make_agent(a["agent"], problem),
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
