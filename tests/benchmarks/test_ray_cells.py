"""Cells on a local cluster of four nodes, one of which is lost on the way."""

import json

import pytest

from allocgym.benchmarks.core import engines, suite
from allocgym.benchmarks.data_mixing.cells import describe, run_cell
from allocgym.envs.core.errors import AllocgymError

pytestmark = [pytest.mark.ray, pytest.mark.slow]

TINY = {"steps": 4, "horizon": 2, "valid_windows": 2, "test_windows": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(3):
        made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_cells_survive_the_loss_of_a_node(cluster, tmp_path):
    cells = [
        describe("scratch", TINY, name, seed) for name in ("uniform", "odm") for seed in range(4)
    ]
    expected = suite.run_cells(cells, run_cell, tmp_path / "local")
    with engines.using("ray", cluster.address) as engine:
        results = engine.run(run_cell, cells, 2)
        got = dict([next(results)])
        cluster.remove_node(next(iter(cluster.worker_nodes)))
        got |= dict(results)
        assert [got[i] for i in range(len(cells))] == expected
        # What is on disk is read back, by either engine.
        again = suite.run_cells(cells, run_cell, tmp_path / "local")
    assert json.dumps(again) == json.dumps(expected)


def test_an_engine_that_does_not_exist_is_named():
    with (
        pytest.raises(AllocgymError, match=r"engine: no 'rya'.*Did you mean 'ray'"),
        engines.using("rya"),
    ):
        pass


def test_an_address_needs_ray():
    with pytest.raises(AllocgymError, match="address: only with engine 'ray'"):
        with engines.using("local", "auto"):
            pass
