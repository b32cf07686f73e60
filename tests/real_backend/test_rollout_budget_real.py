import json
import signal
import subprocess
import sys
import threading

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

torch = pytest.importorskip("torch")

from allocgym.__main__ import main  # noqa: E402
from allocgym.agents.core import catalogue  # noqa: E402
from allocgym.agents.core.agent import rollout  # noqa: E402
from allocgym.agents.rollout_budget.agent import make_rule  # noqa: E402
from allocgym.envs.core import builder  # noqa: E402
from allocgym.envs.core.builder import make_backend, make_problem  # noqa: E402
from allocgym.envs.core.contracts import Shares  # noqa: E402
from allocgym.envs.core.errors import AllocgymError, CorruptFileError  # noqa: E402
from allocgym.envs.core.journal import Journal  # noqa: E402
from allocgym.envs.core.registry import entry, load  # noqa: E402
from allocgym.real_backend.rollout_budget import grpo, tasks  # noqa: E402
from allocgym.real_backend.rollout_budget.model import CharModel, ModelConfig  # noqa: E402
from allocgym.real_backend.rollout_budget.scenario import SCENARIOS  # noqa: E402

ROWS = 12


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("warm"))

    def make(mode="per_prompt", n_max=ROWS, **more):
        problem = make_problem("rollout-budget", n_max=n_max, mode=mode)
        arguments = {
            "scenario": "easy",
            "device": "cpu",
            "cache_dir": cache,
            "warm_steps": 12,
            "each": 8,
            "held": 2,
            "samples": 2,
            "horizon": 3,
            "evaluate_every": 1,
            **more,
        }
        return make_backend(problem, "real", **arguments)

    return make


@pytest.mark.parametrize("regime", tasks.REGIMES)
def test_every_task_accepts_its_own_answer_and_refuses_a_corrupted_one(regime):
    cells = tasks.regime_cells(regime)
    rng = np.random.default_rng(0)
    for index, cell in enumerate(cells):
        for _ in range(20):
            task = tasks.make_task(cell, index, rng)
            assert tasks.verify(task, cell, task.answer)
            assert not tasks.verify(task, cell, task.answer + "1")
            if cell.family != "countdown":
                assert not tasks.verify(task, cell, tasks.corrupt(task.answer, cell, rng))
            assert len(tasks.encode_prompt(task.prompt)) == tasks.PROMPT
            assert tasks.decode([*tasks.encode(task.answer), tasks.END, 3]) == task.answer


def test_countdown_accepts_any_right_expression():
    cell = tasks.Cell("countdown", 2, 0.1)
    task = tasks.Task("c3,4>12=", "3*4", 0)
    assert tasks.verify(task, cell, "4*3")
    for wrong in ("3+4", "3*3", "34", "", "3*", "3*4*1"):
        assert not tasks.verify(task, cell, wrong)


def test_training_and_held_out_prompts_do_not_meet():
    cells = tasks.regime_cells("easy")
    train = {t.prompt for t in tasks.pool(cells, 60, 0, held=False)}
    held = {t.prompt for t in tasks.pool(cells, 20, 1, held=True)}
    assert train and held and not train & held


def test_sampling_with_a_cache_is_sampling_without():
    model = CharModel(ModelConfig(width=16, layers=2, heads=2, answer=6), seed=3)
    rng = np.random.default_rng(0)
    prompts = torch.as_tensor(rng.integers(0, tasks.VOCABULARY, (5, tasks.PROMPT)))
    counts = torch.tensor([3, 0, 2, 7, 1])
    answers, lengths = model.sample(prompts, counts, torch.Generator().manual_seed(0))
    assert len(answers) == 13
    # Forced to the sampled answer, the full model gives the probabilities the cache sampled from:
    # a nearly greedy sample must be the arg max of the uncached model at every place.
    greedy, _ = model.sample(prompts, counts, torch.Generator().manual_seed(0), temperature=1e-4)
    rows = torch.arange(5).repeat_interleave(counts)
    tokens = torch.cat([prompts[rows], greedy[:, :-1]], 1)
    best = model(tokens)[:, tasks.PROMPT - 1 :].argmax(-1)
    mask = greedy != tasks.PAD
    assert (best == greedy)[mask].all()
    for row, length in zip(answers, lengths, strict=True):
        ended = (row == tasks.END).nonzero()
        assert int(length) == (int(ended[0]) + 1 if len(ended) else 6)
        assert (row[int(length) :] == tasks.PAD).all()


def test_sampled_frequencies_are_the_models_probabilities():
    model = CharModel(ModelConfig(width=16, layers=1, heads=2, answer=2), seed=1)
    prompts = torch.full((1, tasks.PROMPT), 4)
    answers, _ = model.sample(prompts, torch.tensor([20_000]), torch.Generator().manual_seed(0))
    p = model(prompts)[0, -1].softmax(-1).detach().numpy()
    found = np.bincount(answers[:, 0].numpy(), minlength=tasks.VOCABULARY) / 20_000
    np.testing.assert_allclose(found, p, atol=0.012)


def test_advantages_and_weights_are_the_published_ones():
    rewards = np.array([1, 0, 0, 0, 1, 1, 0, 0, 0.0])
    group = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    a = grpo.advantages(rewards, group, 3)
    sigma = np.sqrt(0.25 * 0.75)
    np.testing.assert_allclose(a[:4], [0.75 / sigma, *[-0.25 / sigma] * 3])
    assert not a[4:].any()
    assert np.abs(a[:4]).mean() == pytest.approx(2 * sigma)
    np.testing.assert_allclose(grpo.advantages(rewards, group, 3, "dr-grpo")[:2], [0.75, -0.25])
    np.testing.assert_allclose(grpo.advantages(rewards, group, 3, "rloo")[:2], [1.0, -1 / 3])
    for weight in grpo.WEIGHTS:
        assert grpo.loss_weights(group, 3, weight).sum() == pytest.approx(1)
    w = grpo.loss_weights(group, 4, "prompt")
    assert w[:4].sum() == pytest.approx(w[6:].sum()) == pytest.approx(1 / 3)
    with pytest.raises(AllocgymError, match="estimator"):
        grpo.advantages(rewards, group, 3, "ppo")


def test_an_update_makes_right_answers_likelier():
    model = CharModel(ModelConfig(width=16, layers=1, heads=2, answer=3), seed=0)
    prompts = torch.full((1, tasks.PROMPT), 5)
    answers = torch.tensor([[1, tasks.END, tasks.PAD], [2, tasks.END, tasks.PAD]])
    rows = prompts.repeat(2, 1)
    before = model.log_probs(rows, answers).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    norm = grpo.update(model, optimizer, prompts, answers, np.array([0, 0]), np.array([1.0, 0.0]))
    after = model.log_probs(rows, answers).detach()
    assert norm > 0 and after[0] - after[1] > before[0] - before[1]
    assert grpo.update(model, optimizer, prompts, answers, np.zeros(2, int), np.ones(2)) == 0


@pytest.mark.parametrize("name", ["posterior-greedy", "sequential", "anti"])
def test_a_run_keeps_its_books(build, name):
    backend = build(rounds=make_rule(name).rounds)
    outcomes = rollout(catalogue.make(name, backend.problem), backend, np.array([0]))
    last = outcomes[-1]
    assert last.done[0] and last.step[0] == 3 and backend.ledger.left[0] == 0
    assert last.all_rollouts[0] == 3 * backend.scenario.budget
    ended = [o for o in outcomes[1:] if o.round[0] == 0]
    for o in ended:
        assert o.tried.sum() == backend.scenario.budget
        assert (o.right <= o.tried).all() and (o.mixed <= (o.tried > 1)).all()
        assert o.tokens.sum() >= o.tried.sum() and 0 <= o.heldout[0] <= 1


def test_bins_are_cells(build):
    backend = build("bins", n_max=24, rows=48, budget=384)
    problem = backend.problem
    outcome = backend.reset(np.array([0]))
    memory = problem.begin(outcome)
    decision = problem.decode(np.zeros((1, 24), np.float32), memory)
    after = backend.spend(decision)
    np.testing.assert_array_equal(after.tried, decision.units)
    assert outcome.prompts.sum() == 48


def test_a_run_goes_on_bit_for_bit_after_a_restart(build, tmp_path):
    even = Shares(np.full((1, ROWS), 8))
    one = build()
    one.reset(np.array([2]))
    one.spend(even)
    one.checkpoint(tmp_path / "run.ckpt")
    expected = [one.spend(even), one.spend(even)]
    other = build()
    other.restore(tmp_path / "run.ckpt")
    for outcome in expected:
        assert other.spend(even) == outcome
    assert other.ledger.to_json() == one.ledger.to_json()
    with pytest.raises(AllocgymError, match="another run"):
        build(lr=1e-3).restore(tmp_path / "run.ckpt")
    (tmp_path / "bad.ckpt").write_bytes(b"x" * 100)
    with pytest.raises(CorruptFileError):
        other.restore(tmp_path / "bad.ckpt")


def test_a_run_goes_on_bit_for_bit_between_rounds_of_an_update(build, tmp_path):
    """A checkpoint after every round, as a deployment writes them; each is gone on from."""
    part = Shares(np.full((1, ROWS), 2))
    one = build(rounds=4, horizon=2)
    one.reset(np.array([2]))
    outcomes = []
    for period in range(8):
        one.checkpoint(tmp_path / f"{period}.ckpt")
        outcomes.append(one.spend(part))
    assert [int(o.round[0]) for o in outcomes] == [1, 2, 3, 0] * 2
    weights = one.model.state_dict()
    for period in (1, 3, 4, 6):
        other = build(rounds=4, horizon=2)
        other.restore(tmp_path / f"{period}.ckpt")
        for outcome in outcomes[period:]:
            assert other.spend(part) == outcome
        assert other.ledger.to_json() == one.ledger.to_json()
        for name, value in other.model.state_dict().items():
            assert torch.equal(value, weights[name])


def test_runs_of_older_folders_are_the_same_runs():
    """Digests as the first checkpoints hold them, by the names and fields they were made with."""
    found = entry("rollout-budget")
    choose = load(found.backends["real"]).choose
    assert choose(found.scenario, {}).digest() == "54766b564e9e59ca"
    assert choose("tiny", {}) == choose("easy", {}) == SCENARIOS["easy"]
    assert choose("hetero-cost", {}).name == "mixed-cost"
    renamed = choose("easy", {"regime": "hard-tail"})
    assert renamed.name == "hard-tail" and renamed.digest() == SCENARIOS["hard-tail"].digest()
    assert choose("easy", {"budget": 512}).digest() == "54766b564e9e59ca"


def test_it_is_built_on_its_defaults():
    made = builder.build("rollout-budget", "real", warm_steps=3, each=2, held=1)
    assert made.problem.mode == "per_prompt" and made.problem.n_max == made.scenario.rows == 64
    assert made.spec.scenario == "easy" and made.scenario.budget == 512
    fewer = builder.build("rollout-budget", "real", n_max=8, each=2, held=1)
    assert fewer.scenario.rows == 8 and fewer.scenario.budget == 64
    asked = builder.build("rollout-budget", "real", rows=8, budget=128, each=2, held=1)
    assert asked.problem.n_max == 8 and asked.scenario.budget == 128


def test_the_environment_spends_real_rollouts(tmp_path):
    env = gym.make(
        "allocgym:allocgym/RolloutBudget-v0",
        backend="real",
        rows=8,
        budget=32,
        horizon=2,
        rounds=2,
        warm_steps=3,
        each=4,
        held=1,
        samples=1,
        device="cpu",
        cache_dir=str(tmp_path),
    )
    check_env(env.unwrapped, skip_render_check=True)
    env.reset(seed=0)
    for period in range(4):
        observation, reward, done, _, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observation) and np.isfinite(reward)
        assert info["spent"] == 16 and done == (period == 3)


def test_the_same_seed_is_the_same_run(build):
    def run(seed):
        outcomes = rollout(catalogue.make("uniform", build().problem), build(), np.array([seed]))
        return [o.to_json() for o in outcomes]

    assert run(1) == run(1) != run(2)


def test_angles_are_cosines(build):
    backend = build()
    backend.reset(np.array([0]))
    angles = backend.world.angles(np.arange(6))
    assert angles.shape == (6,) and (np.abs(angles) <= 1 + 1e-5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "eazy"}, "Did you mean 'easy'"),
        ({"estimator": "ppo"}, "estimator"),
        ({"loss_weight": "token"}, "loss_weight"),
        ({"num_envs": 2}, "num_envs"),
        ({"learning_rate": 1.0}, "no 'learning_rate'"),
        ({"rows": 5, "budget": 40}, "n_max"),
        ({"budget": 2**15}, "low, high"),
        ({"scenario": "reasoning"}, "model: the folder or hub name"),
        ({"model": "somewhere"}, "model: the folder or hub name"),
        ({"multiple": 4, "high": 9, "budget": 108}, "low, high"),
        ({"held": 1000, "samples": 1000}, "held, samples"),
        ({"horizon": 10**12}, "horizon"),
        ({"lr": float("nan")}, "lr"),
        ({"temperature": 0.0}, "temperature"),
        ({"threads": 10**9}, "threads"),
        ({"cache_dir": 5}, "cache_dir"),
        ({"progress": 5}, "progress"),
        ({"clock": "sun"}, "clock"),
        ({"device": "abacus"}, "device"),
    ],
)
def test_a_wrong_argument_is_told(build, arguments, message):
    with pytest.raises(AllocgymError, match=message):
        build(**arguments)


def test_a_real_run_is_deployed_by_its_description(tmp_path):
    from allocgym.benchmarks.core import deployment as deploying

    arguments = {
        "problem": "rollout-budget",
        "backend": "real",
        "scenario": "easy",
        "agent": "uniform",
        "fallback": "uniform",
        "shadow": None,
        "seed": 0,
        "max_change": None,
        "max_seconds": None,
        "max_cost": None,
        "overrides": {
            "rows": 24,
            "budget": 96,
            "horizon": 2,
            "warm_steps": 5,
            "held": 2,
            "samples": 1,
            "device": "cpu",
            "cache_dir": str(tmp_path / "cache"),
        },
    }
    deploying.check(arguments)
    done = deploying.run(tmp_path / "run", arguments, print)
    assert done["periods"] == 2 and done["ledger"]["spent"] == [192]
    assert (tmp_path / "run" / "decisions.parquet").exists()


@pytest.mark.chaos
@pytest.mark.slow
def test_a_run_killed_between_rounds_goes_on_bit_for_bit(tmp_path, monkeypatch):
    """`kill -9` while an update is half sampled, then `allocgym resume`."""
    pytest.importorskip("matplotlib")
    settings = {"rows": 12, "budget": 96, "rounds": 4, "horizon": 3, "warm_steps": 5, "each": 8}
    settings |= {"held": 2, "samples": 1, "device": "cpu", "cache_dir": str(tmp_path / "cache")}
    arguments = ["deploy", "rollout-budget", "--agent", "sequential", "--seed", "3"]
    for key, value in settings.items():
        arguments += ["--set", f"{key}={value}"]

    def command(*given):
        monkeypatch.setattr(sys, "argv", ["allocgym", *given])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code

    def kept(folder):
        journal = Journal(folder / "journal.jsonl")
        journal.close()
        return journal.entries, json.loads((folder / "ledger.json").read_text())

    command(*arguments, "--folder", str(tmp_path / "whole"))
    expected = kept(tmp_path / "whole")
    assert len(expected[0]) == 2 * 12 + 1
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "allocgym", *arguments, "--folder", str(folder)]
    )
    journal = folder / "journal.jsonl"
    for _ in range(12000):
        written = journal.read_bytes().count(b"\n") if journal.exists() else 0
        # Eleven lines: the second round of the second update is about to be decided.
        if written >= 11 or process.poll() is not None:
            break
        threading.Event().wait(0.01)
    process.kill()
    assert process.wait(timeout=60) == -signal.SIGKILL
    assert not (folder / "ledger.json").exists()
    command("resume", str(folder))
    assert kept(folder) == expected
