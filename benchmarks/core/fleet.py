"""Several deployments at once on a Ray cluster, under one budget.

Every run is an actor with the resources asked for. Run folders lie on storage all nodes see; when an
actor or its node is lost, Ray starts it elsewhere and it goes on from its journal and its newest
checkpoint. The budget is an actor too: a grant is written to disk before it is given, under the run's
name and the decision's key, so a decision that is carried out again is not paid again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from allocgym.agents.core.run_folder import describe_run, read_run
from allocgym.benchmarks.core import engines
from allocgym.benchmarks.core.deployment import run as run_deployment
from allocgym.envs.core.errors import AllocgymError, OwnedError
from allocgym.envs.core.journal import Journal
from allocgym.envs.core.ownership import Owner

PATIENCE = 60  # seconds that a lost process may take to be gone

T = TypeVar("T")


def when_free(work: Callable[[], T]) -> T:
    """Do what needs a folder of its own; an actor may be started again before the lost one is gone.

    Raises:
        OwnedError: the folder's owner lives on.
    """
    for _ in range(PATIENCE):
        try:
            return work()
        except OwnedError:
            time.sleep(1)
    return work()


class FleetBudget:
    """Grants units of one budget to many runs, each decision once.

    Args:
        folder: where ``fleet.jsonl`` is kept; an existing one is taken up again.
        units: the whole budget, or None for no limit.
    """

    def __init__(self, folder: str | Path, units: int | None) -> None:
        self.units = units
        self._journal = when_free(lambda: Journal(Path(folder) / "fleet.jsonl"))
        self._granted = {(e["run"], e["key"]): int(e["units"]) for e in self._journal.entries}

    def permit(self, run: str, key: str, units: int) -> bool:
        """Grant ``units`` to a decision, or say that there are not enough left."""
        if (run, key) in self._granted:
            return True
        if self.units is not None and self.spent() + units > self.units:
            return False
        self._journal.append({"run": run, "key": key, "units": units})
        self._granted[run, key] = units
        return True

    def spent(self) -> int:
        """Units granted so far."""
        return sum(self._granted.values())

    def close(self) -> None:
        """Close the file."""
        self._journal.close()


class LiveRun:
    """One deployment, as a Ray actor. All it needs to be started again elsewhere is its folder.

    Args:
        folder: with ``run.json``.
        budget: name of the `FleetBudget` actor.
    """

    def __init__(self, folder: str, budget: str) -> None:
        self.folder, self.budget = Path(folder), budget

    def run(self) -> dict[str, Any]:
        """Run to the end, or go on where a lost actor stopped."""
        import ray

        budget = ray.get_actor(self.budget)
        arguments = read_run(self.folder)

        def permit(key: str, units: int) -> bool:
            return bool(ray.get(budget.permit.remote(self.folder.name, key, units)))

        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:

            def say(line: str) -> None:
                print(line, file=log, flush=True)

            say(f"on node {ray.get_runtime_context().get_node_id()}")
            return when_free(lambda: run_deployment(self.folder, arguments, say, permit))


def deploy(
    folder: Path,
    runs: dict[str, dict[str, Any]],
    address: str | None = None,
    units: int | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> dict[str, dict[str, Any]]:
    """Run several deployments at once and return what each came to.

    Args:
        folder: on storage that every node sees; each run gets a folder of its name in it.
        runs: arguments of each deployment (as in ``run.json``) by name.
        address: of a running cluster, or None: one on this machine.
        units: budget of all runs together, or None.
        cpus: processors of each run.
        gpus: accelerators of each run.

    Raises:
        AllocgymError: no runs, or a budget that is not positive.
        OwnedError: another process runs this fleet.
    """
    if not runs:
        raise AllocgymError("runs: at least one deployment expected")
    if units is not None and units < 1:
        raise AllocgymError(f"units: an integer >= 1 expected, given {units}")
    with Owner(folder, "fleet"):
        return _deploy(folder, runs, address, units, {"num_cpus": cpus, "num_gpus": gpus})


def _deploy(
    folder: Path,
    runs: dict[str, dict[str, Any]],
    address: str | None,
    units: int | None,
    resources: dict[str, float],
) -> dict[str, dict[str, Any]]:
    ray = engines.connect(address)
    for name, arguments in runs.items():
        if not (folder / name / "run.json").exists():
            describe_run(folder / name, arguments)
    # Restarted without limit: both take up what is on disk.
    forever = {"max_restarts": -1, "max_task_retries": -1}
    shared = f"fleet budget {folder.resolve()}"
    budget = (
        ray.remote(FleetBudget)
        .options(num_cpus=0, name=shared, **forever)
        .remote(str(folder.resolve()), units)
    )
    actors = {
        name: ray.remote(LiveRun)
        .options(**resources, **forever)
        .remote(str((folder / name).resolve()), shared)
        for name in runs
    }
    pending = {name: actor.run.remote() for name, actor in actors.items()}
    results = {name: ray.get(reference) for name, reference in pending.items()}
    for actor in (*actors.values(), budget):
        ray.kill(actor)
    return results
