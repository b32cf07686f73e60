"""Several workers train one model: the same step as one process at the same batch."""

import threading

import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.envs.core.builder import make_backend
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.data_mixing.problem import DataMixing

torch = pytest.importorskip("torch")

TINY = {"scenario": "scratch", "steps": 8, "horizon": 2, "valid_windows": 4, "test_windows": 4}


class Threads:
    """Sums tensors over threads: what a process group does, without processes."""

    def __init__(self, world):
        self.barrier, self.held = threading.Barrier(world), [None] * world

    def reduce(self, rank):
        def add(tensor):
            self.held[rank] = tensor.clone()
            self.barrier.wait()
            tensor.copy_(sum(self.held[1:], self.held[0]))
            self.barrier.wait()

        return add


@pytest.mark.parametrize("world", [2, 3])
def test_parts_of_a_batch_make_the_step_of_the_whole(world):
    from allocgym.real_backend.data_mixing.training import Shard

    problem = DataMixing()
    whole = make_backend(problem, "real", device="cpu", **TINY).trainer
    units, rates = np.array([30, 34, 0]), np.full(4, 1e-3)
    units = np.resize(units, len(whole.corpora))
    units[-1] += 4 * 16 - units.sum()
    whole.begin(0, 1)
    whole.train(units, rates)
    group, parts = Threads(world), []
    for rank in range(world):
        part = make_backend(problem, "real", device="cpu", **TINY).trainer
        part.begin(0, 1)
        part.shard = Shard(rank, world, group.reduce(rank))
        parts.append(part)
    workers = [threading.Thread(target=p.train, args=(units, rates)) for p in parts]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for name, tensor in whole.state().items():
        for part in parts:
            assert torch.allclose(part.state()[name], tensor, rtol=1e-3, atol=1e-5), name
        assert torch.equal(parts[0].state()[name], parts[1].state()[name]), name
    assert (parts[0].cursors == whole.cursors).all()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_two_workers_measure_what_one_does_though_a_node_is_lost(tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from allocgym.real_backend.core import cluster as connecting

    problem, seeds = DataMixing(), np.array([3])
    alone = make_backend(problem, "real", device="cpu", **TINY)
    expected = rollout(catalogue.make("odm", problem), alone, seeds)
    alone.checkpoint(tmp_path / "alone.ckpt")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    try:
        connecting.connect(cluster.address)
        live = make_backend(problem, "ray", workers=2, storage=tmp_path / "runs", **TINY)
        agent = catalogue.make("odm", problem)
        got = [live.reset(seeds)]
        agent.begin(live.spec, 0)
        agent.tell(got[0])
        for period in range(2):
            decision = agent.ask()
            if period == 0:
                spending = threading.Thread(
                    target=lambda decision: got.append(live.spend(decision)), args=(decision,)
                )
                spending.start()
                tick = threading.Event()
                while spending.is_alive() and ray.available_resources().get("CPU", 0.0) > 0:
                    tick.wait(0.05)
                # Both nodes have a worker; one goes, another comes.
                cluster.remove_node(next(iter(cluster.worker_nodes)))
                cluster.add_node(num_cpus=1)
                spending.join()
            else:
                got.append(live.spend(decision))
            agent.tell(got[-1])
        live.checkpoint(tmp_path / "several.ckpt")
        live.close()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert len(got) == 3 and live.ledger.to_json() == alone.ledger.to_json()
    for a, b in zip(got, expected, strict=True):
        assert (a.units == b.units).all() and a.done == b.done
        assert a.losses == pytest.approx(b.losses, rel=1e-5)
        assert a.heldout == pytest.approx(b.heldout, rel=1e-5)
    # Either file goes on in the other back end.
    for name, file in (("real", "several.ckpt"), ("ray", "alone.ckpt")):
        again = make_backend(problem, name, **TINY)
        again.restore(tmp_path / file)
        assert again.outcome.losses == pytest.approx(expected[-1].losses, rel=1e-5)
        again.close()


def test_what_cannot_be_is_told():
    pytest.importorskip("ray")
    with pytest.raises(AllocgymError, match="workers: 1 to 16"):
        make_backend(DataMixing(), "ray", workers=17, **TINY)
    with pytest.raises(AllocgymError, match="gpus: 0 or 1"):
        make_backend(DataMixing(), "ray", gpus=0.5, **TINY)
