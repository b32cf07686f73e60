"""RLlib trains the policy that Stable-Baselines3 trains; files of either are read the same way."""

import numpy as np
import pytest

from allocgym.agents.core import agent_file, catalogue
from allocgym.agents.core.agent import rollout
from allocgym.envs.core.builder import make_backend
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.data_mixing.problem import DataMixing

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # RLlib's own
]

ENV = "allocgym:allocgym/DataMixing-v0"
SETTING = {"scenario": "continual-pretraining", "domains": 3, "horizon": 4}


@pytest.fixture(scope="module")
def rllib():
    pytest.importorskip("ray")
    return pytest.importorskip("allocgym.agents.core.rllib")


@pytest.fixture(scope="module")
def trained(rllib, tmp_path_factory):
    from allocgym.benchmarks.core import engines

    ray = engines.connect()
    folder = tmp_path_factory.mktemp("rllib") / "checkpoint"
    policy, information = rllib.train_rllib(ENV, SETTING, 128, num_envs=8, checkpoint=folder)
    yield policy, information, folder
    ray.shutdown()


def test_padding_contributes_nothing(rllib):
    torch = pytest.importorskip("torch")
    present = torch.tensor([[1.0, 1.0, 0.0]])
    mean, spread = torch.tensor([[0.2, -0.1, 0.7]]), torch.full((1, 3), 0.3)
    wide = rllib.MaskedGaussian(mean, spread, present)
    two = torch.distributions.Normal(mean[:, :2], spread[:, :2])
    action = torch.tensor([[0.1, 0.2, 5.0]])
    assert wide.logp(action) == pytest.approx(two.log_prob(action[:, :2]).sum(-1))
    assert wide.entropy() == pytest.approx(two.entropy().sum(-1))
    assert wide.kl(wide) == pytest.approx([0.0])
    assert (wide.sample()[:, 2] == 0).all()


def test_a_checkpoint_yields_the_same_policy_and_an_agent_file(rllib, trained, tmp_path):
    policy, information, folder = trained
    assert information["steps"] >= 128
    again = rllib.policy_of(folder)
    for name, tensor in policy.state_dict().items():
        assert np.array_equal(tensor.numpy(), again.state_dict()[name].numpy())
    problem = DataMixing()
    agent_file.save(tmp_path / "agent.zip", problem, *again.to_file(), information)
    agent = catalogue.make(tmp_path / "agent.zip", problem)
    backend = make_backend(problem, "twin", num_envs=2, **SETTING)
    assert rollout(agent, backend, np.arange(2))[-1].done.all()


def test_training_goes_on_from_a_checkpoint(rllib, trained):
    _, _, folder = trained
    _, more = rllib.train_rllib(ENV, SETTING, 192, num_envs=8, checkpoint=folder)
    assert more["steps"] >= 192


def test_what_is_no_checkpoint_is_told(rllib, tmp_path):
    with pytest.raises(AllocgymError, match="not an RLlib checkpoint"):
        rllib.policy_of(tmp_path)
    with pytest.raises(AllocgymError, match="algorithm: no 'pppo'"):
        rllib.configure(ENV, SETTING, "pppo")


def test_training_survives_the_loss_of_a_node(rllib, tmp_path):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from allocgym.benchmarks.core import engines

    ray.shutdown()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    for _ in range(3):
        cluster.add_node(num_cpus=1)
    seen = []

    def progress(done, value):
        seen.append(done)
        if len(seen) == 2:
            # Two of three: one of them at least has a runner.
            for node in list(cluster.worker_nodes)[:2]:
                cluster.remove_node(node)
            cluster.add_node(num_cpus=1)

    try:
        engines.connect(cluster.address)
        folder = tmp_path / "checkpoint"
        policy, information = rllib.train_rllib(
            ENV, SETTING, 400, num_envs=4, runners=2, checkpoint=folder, progress=progress
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert information["steps"] >= 400 and len(seen) > 3
    assert seen == sorted(seen), "no step is counted twice"
    for name, tensor in rllib.policy_of(folder).state_dict().items():
        assert np.isfinite(tensor.numpy()).all()
        assert np.array_equal(tensor.numpy(), policy.state_dict()[name].numpy())
