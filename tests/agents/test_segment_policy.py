"""The set encoder, its masked training, its files, and the tree search it guides."""

import gymnasium as gym
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from allocgym.agents.activation_plan import rule as rules  # noqa: E402
from allocgym.agents.activation_plan.heuristics import RulePlanner  # noqa: E402
from allocgym.agents.core import agent_file, catalogue  # noqa: E402
from allocgym.agents.core import segment_policy as segments  # noqa: E402
from allocgym.agents.core.agent import rollout  # noqa: E402
from allocgym.agents.memory_mapping import solver, tree  # noqa: E402
from allocgym.envs.activation_plan.problem import ActivationPlan  # noqa: E402
from allocgym.envs.activation_plan.profile import profile_from_json, timeline  # noqa: E402
from allocgym.envs.core import builder  # noqa: E402
from allocgym.envs.core.errors import AllocgymError, CorruptFileError  # noqa: E402
from allocgym.envs.memory_mapping.plan import saved, validate  # noqa: E402
from allocgym.envs.memory_mapping.problem import MemoryMapping  # noqa: E402
from allocgym.simulators.activation_plan.profile import profiles, recorded  # noqa: E402
from allocgym.simulators.activation_plan.scenario import SCENARIOS  # noqa: E402
from allocgym.simulators.memory_mapping.program import device, unet  # noqa: E402


def fresh(problem, seed=0):
    torch.manual_seed(seed)
    return segments.make(problem, 16).eval()


def observed(problem, backend="twin", **arguments):
    made = builder.make_backend(problem, backend, num_envs=5, **arguments)
    return problem.encode(problem.begin(made.reset(np.arange(5))))


@pytest.mark.parametrize("problem", [MemoryMapping(), ActivationPlan()])
def test_padding_and_the_order_of_other_rows_change_nothing(problem):
    policy, seen = fresh(problem), observed(problem)
    logs, value = policy.look(seen)
    assert (logs[seen["action_mask"] == 0] < -1e6).all()
    np.testing.assert_allclose(np.exp(logs).sum(1), 1, rtol=1e-5)
    rest = np.random.default_rng(0).permutation(np.arange(1, problem.n_max))
    order = [0, *rest]
    wide = {k: v for k, v in seen.items()}
    wide["claimants"] = np.pad(seen["claimants"][:, order], ((0, 0), (0, 4), (0, 0)))
    wide["present"] = np.pad(seen["present"][:, order], ((0, 0), (0, 4)))
    other = policy.look(wide)
    np.testing.assert_allclose(logs, other[0], atol=1e-5)
    np.testing.assert_allclose(value, other[1], atol=1e-5)


def test_files_are_read_back_and_checked(tmp_path):
    problem, file = MemoryMapping(), tmp_path / "a.zip"
    policy = fresh(problem)
    agent_file.save(file, problem, *policy.to_file(), {"trainer": "none"})
    seen = observed(problem)
    np.testing.assert_array_equal(policy.look(seen)[0], segments.load(file, problem).look(seen)[0])
    agent = catalogue.make(file, problem)
    backend = builder.make_backend(problem, "twin", num_envs=2)
    assert rollout(agent, backend, np.arange(2))[-1].done.all()
    with pytest.raises(AllocgymError, match="order=False"):
        catalogue.make(file, MemoryMapping(order=True))
    with pytest.raises(AllocgymError, match="activation-plan"):
        segments.load(file, ActivationPlan())
    with pytest.raises(CorruptFileError, match="not a segment policy"):
        segments.load(solver.PRETRAINED / "priorities.zip", problem)


def test_a_beam_is_valid_and_a_wider_search_is_no_worse():
    program = unet(32, 16, 2)
    chip = device(program, 0.4)
    policy = fresh(MemoryMapping())
    found = []
    for width in (1, 6):
        actions = tree.beam(program, chip, policy, width)
        got, plan = tree.play(program, chip, actions)
        validate(program, chip, plan)
        assert got == pytest.approx(saved(program, chip, plan), abs=1e-9)
        found.append((got, plan))
    greedy = tree.play(program, chip, tree.greedy(program, chip, policy))
    validate(program, chip, greedy[1])
    best = tree.search(program, chip, policy, 0.5, max(found, key=lambda f: f[0]))
    assert best[0] >= max(f[0] for f in found)
    assert tree.beam(program, chip, policy, 4, seconds=0.0) is None
    assert tree.search(program, chip, policy, 0.0, greedy) is greedy


def test_a_beam_that_keeps_everything_finds_the_best_line():
    program = unet(16, 8, 1)
    chip = device(program, 0.5)
    count = len(program.segments)
    few = min(count, 9)
    policy = fresh(MemoryMapping())
    wide, _ = tree.play(program, chip, tree.beam(program, chip, policy, 3**few))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        got, _ = tree.play(program, chip, rng.integers(3, size=count))
        assert wide >= got - 1e-12


@pytest.mark.parametrize("name", ["MemoryMapping", "ActivationPlan"])
def test_masked_training_is_a_function_of_the_seed(name):
    pytest.importorskip("sb3_contrib")
    from allocgym.agents.core import masked_ppo as masked

    runs = []
    for _ in range(2):
        env = gym.make_vec(f"allocgym:allocgym/{name}-v0", num_envs=4, strict=True).unwrapped
        policy, facts = masked.train(env, 64, seed=3, hidden=8, n_steps=8)
        runs.append({k: v.numpy() for k, v in policy.state_dict().items()})
    for key, value in runs[0].items():
        np.testing.assert_array_equal(value, runs[1][key])
    torch.manual_seed(0)
    untouched = segments.make(env.problem, 8).state_dict()
    assert any((v.numpy() != runs[0][k]).any() for k, v in untouched.items())
    assert facts["steps"] == 64


def test_a_learned_plan_keeps_the_budget_in_every_rule_of_the_game():
    problem = ActivationPlan()
    policy = fresh(problem)
    for data in [*profiles(SCENARIOS["gpt-gpu-test"])[:2], recorded("gpt-wide")]:
        p = profile_from_json(data, 32, 0.3)
        action = rules.learned(p, policy)
        assert timeline(p, action[None])[1][0] <= p.budget[0]
    with pytest.raises(AllocgymError, match="agent"):
        RulePlanner(problem, "nobody")


def test_the_shipped_plan_agent_is_ahead_of_recomputing_everything():
    problem = ActivationPlan()
    back = builder.make_backend(problem, "twin", scenario="gpt-gpu-test", num_envs=3)
    found = {
        name: rollout(catalogue.make(name, problem), back, np.arange(3))[-1]
        for name in ("learned", "recompute-all", "best-of", "cheapest-recompute")
    }
    assert (found["learned"].peak <= found["learned"].profile.budget).all()
    assert found["learned"].time.mean() < found["recompute-all"].time.mean()
    best = np.minimum(found["learned"].time, found["cheapest-recompute"].time)
    assert (found["best-of"].time <= best * (1 + 1e-9)).all()


@pytest.mark.parametrize("solver", ["dp", "greedy", "ilp"])
def test_torchs_own_rules_save_within_the_sum_allowed(solver):
    p = profile_from_json(recorded("gpt-wide"), 8, 0.5)
    action = rules.torch_knapsack(p, solver)
    assert set(action.tolist()) <= {0, 1}
    mine = p.present[0]
    sizes = (p.size - p.left_recompute)[0, mine]
    assert sizes[action[mine] == 0].sum() <= 0.5 * sizes.sum() * (1 + 1e-6)
