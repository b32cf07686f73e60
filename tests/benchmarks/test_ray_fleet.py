"""Live runs as actors of a local cluster: a node is lost, nothing else is."""

import threading

import pytest

from allocgym.benchmarks.core import deployment as deploying
from allocgym.benchmarks.core import fleet
from allocgym.benchmarks.core.fleet import FleetBudget
from allocgym.envs.core.errors import OwnedError
from allocgym.envs.core.journal import Journal

TINY = {"steps": 24, "horizon": 6, "valid_windows": 2, "test_windows": 2, "device": "cpu"}


def arguments(seed):
    return {
        "problem": "data-mixing",
        "agent": "odm",
        "backend": "real",
        "scenario": "scratch",
        "seed": seed,
        "fallback": "uniform",
        "max_change": None,
        "max_seconds": None,
        "max_cost": None,
        "shadow": None,
        "overrides": TINY,
    }


def entries(folder):
    return Journal.reading(folder / "journal.jsonl").entries


@pytest.fixture
def budgets(tmp_path):
    made = []

    def make(units):
        made.append(FleetBudget(tmp_path, units))
        return made[-1]

    yield make
    for budget in made:
        budget.close()


def test_a_grant_is_given_once_and_survives_a_restart(budgets, monkeypatch):
    budget = budgets(100)
    assert budget.permit("a", "period-0", 60)
    assert budget.permit("a", "period-0", 60), "the same decision again"
    assert not budget.permit("b", "period-0", 60)
    with monkeypatch.context() as patch, pytest.raises(OwnedError, match="at work there"):
        patch.setattr(fleet, "PATIENCE", 0)
        budgets(100)
    budget.close()
    again = budgets(100)
    assert again.spent() == 60
    assert again.permit("a", "period-0", 60) and again.permit("b", "period-0", 40)
    assert not again.permit("b", "period-1", 1)


def test_a_run_stops_where_the_shared_budget_ends(tmp_path, budgets):
    budget = budgets(4 * 16 * 2)
    result = deploying.run(
        tmp_path / "run",
        arguments(0),
        lambda line: None,
        lambda key, units: budget.permit("run", key, units),
    )
    assert result["periods"] == 2 and "shared budget" in result["stopped"]
    assert result["ledger"]["spent"] == [budget.spent()]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_fleet_survives_the_loss_of_a_node(tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(3):
        cluster.add_node(num_cpus=1)
    runs = {f"run-{seed}": arguments(seed) for seed in range(2)}
    whole = 24 * 16 * len(runs)
    results = {}
    worker = threading.Thread(
        target=lambda: results.update(fleet.deploy(tmp_path, runs, cluster.address, whole))
    )
    try:
        worker.start()
        journal = tmp_path / "run-0" / "journal.jsonl"
        tick = threading.Event()
        while worker.is_alive() and not (journal.exists() and journal.read_text().count("\n") >= 5):
            tick.wait(0.05)
        host = (tmp_path / "run-0" / "log.txt").read_text().split()[2]
        cluster.remove_node(next(n for n in cluster.worker_nodes if n.node_id == host))
        worker.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert (tmp_path / "run-0" / "log.txt").read_text().count("on node") == 2, "it was moved"
    granted = Journal.reading(tmp_path / "fleet.jsonl").entries
    assert sum(e["units"] for e in granted) == whole, "nothing is paid twice"
    for name, each in runs.items():
        alone = deploying.run(tmp_path / "alone" / name, each, lambda line: None)
        assert results[name]["objective"] == alone["objective"]
        assert results[name]["ledger"] == alone["ledger"]
        assert entries(tmp_path / name) == entries(tmp_path / "alone" / name)
