"""Members as trials of Ray Tune on a local cluster of four nodes, one of which is lost on the way."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.benchmarks.core import deployment as deploying
from allocgym.envs.core.builder import make_backend
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.population.problem import Population

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

TINY = {"members": 3, "horizon": 4, "interval": 5, "valid": 64, "test": 64, "device": "cpu"}


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    from allocgym.real_backend.core import cluster as connecting

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(3):
        made.add_node(num_cpus=2)
    connecting.connect(made.address)
    yield made
    ray.shutdown()
    made.shutdown()


def backend(name, problem, tmp_path, **changes):
    extra = {"storage": tmp_path} if name == "ray" else {}
    return make_backend(problem, name, scenario="digits", **{**TINY, **extra, **changes})


def same(one, other):
    a, b = one.to_json(), other.to_json()
    for name in a:
        if name in ("scores", "heldout"):
            assert a[name]["data"][0] == pytest.approx(b[name]["data"][0], rel=1e-5)
        else:
            assert a[name] == b[name], name


def test_trials_report_what_the_stack_does_though_a_node_is_lost(cluster, tmp_path):
    problem = Population(n_max=4)
    seeds = np.array([3])
    expected = rollout(
        catalogue.make("pbt-1", problem), backend("real", problem, tmp_path), seeds, 3
    )
    assert any((o.donor != np.arange(4)).any() for o in expected), "somebody copies"
    live, agent = backend("ray", problem, tmp_path), catalogue.make("pbt-1", problem)
    got = [live.reset(seeds)]
    agent.begin(live.spec, 3)
    agent.tell(got[0])
    for period in range(4):
        if period == 1:
            lost = live.nodes[0]
            cluster.remove_node(next(n for n in cluster.worker_nodes if n.node_id == lost))
        got.append(live.spend(agent.ask()))
        agent.tell(got[-1])
        if period == 1:
            live.checkpoint(tmp_path / "half.ckpt")
    assert lost not in live.nodes
    live.close()
    assert live.ledger.to_json()["spent"] == [60]
    for a, b in zip(got, expected, strict=True):
        same(a, b)
    # The file goes on in the other back end, and in a new set of trials.
    for name in ("real", "ray"):
        again, agent = backend(name, problem, tmp_path), catalogue.make("pbt-1", problem)
        again.restore(tmp_path / "half.ckpt")
        agent.begin(again.spec, 3)
        for outcome in expected[:3]:
            agent.tell(outcome)
            if not outcome.period[0] == 2:
                agent.ask()
        same(again.spend(agent.ask()), expected[3])
        again.close()
    assert not list(tmp_path.glob("population-*")), "trials leave nothing behind"


def test_members_take_turns_where_there_is_no_room_for_all(cluster, tmp_path):
    problem = Population(n_max=4)
    fewer = {"horizon": 1, "cpus": 2.0}
    live = backend("ray", problem, tmp_path, **fewer)
    fewer.pop("cpus")
    stacked = backend("real", problem, tmp_path, **fewer)
    agents = [catalogue.make("random-search", problem) for _ in range(2)]
    pairs = zip(
        rollout(agents[0], live, np.array([1])),
        rollout(agents[1], stacked, np.array([1])),
        strict=True,
    )
    for a, b in pairs:
        same(a, b)
    live.close()


def test_a_deployment_on_trials_keeps_its_books(cluster, tmp_path):
    arguments = {
        "problem": "population",
        "agent": "pbt-1",
        "backend": "ray",
        "scenario": "digits",
        "seed": 1,
        "fallback": "random-search",
        "max_change": None,
        "max_seconds": None,
        "max_cost": None,
        "shadow": None,
        "overrides": {**TINY, "horizon": 2, "storage": str(tmp_path)},
    }
    result = deploying.run(tmp_path / "run", arguments, lambda line: None)
    assert result["periods"] == 2 and result["ledger"]["spent"] == [30]
    assert json.loads((tmp_path / "run" / "ledger.json").read_text())["stopped"] is None


def test_what_cannot_be_is_told_before_a_cluster_is_needed():
    problem = Population(n_max=4, knobs=("batch_size",))
    pytest.importorskip("ray")
    with pytest.raises(AllocgymError, match="changes nothing"):
        make_backend(problem, "ray", scenario="digits", members=3)


def test_a_users_experiment_does_what_the_controller_says(cluster, tmp_path, monkeypatch):
    from ray import cloudpickle

    source = Path(__file__).parents[2] / "examples" / "ray_tune_population.py"
    specification = importlib.util.spec_from_file_location("ray_tune_population", source)
    example = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "ray_tune_population", example)
    specification.loader.exec_module(example)
    # Trials get it by value: it is no module of theirs.
    cloudpickle.register_pickle_by_value(example)
    scheduler, controller = example.run("pbt-1", tmp_path)
    assert scheduler.periods == example.HORIZON and scheduler.copies > 0
    # The same lineages in this process, without Tune.
    first, n = controller.outcomes[0], example.MEMBERS
    members = [example.Line({"learning_rate": float(first.knobs[0, i, 0])}) for i in range(n)]
    for member in members:
        losses = [member.step()["loss"] for _ in range(example.INTERVAL)]
    assert losses[-1] == first.scores[0, -1]
    for keyed, outcome in zip(controller.decisions, controller.outcomes[1:], strict=True):
        plan, told = keyed.decision, outcome.scores[0]
        weights = [members[d].weights.copy() for d in plan.donor[0]]
        for i, member in enumerate(members):
            member.weights = weights[i]
            member.config = {"learning_rate": float(plan.knobs[0, i, 0])}
            for _ in range(plan.steps[0, i]):
                loss = member.step()["loss"]
            assert loss == pytest.approx(told[i], rel=1e-12)
        assert outcome.spent[0] == plan.steps.sum()
