"""A real population: exact copies, members that do not touch each other, runs that survive a kill."""

import itertools
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")


from allocgym.agents.core import catalogue  # noqa: E402
from allocgym.agents.core.agent import rollout  # noqa: E402
from allocgym.agents.population.grid import GridWSD  # noqa: E402
from allocgym.envs.core.builder import make_backend, make_problem  # noqa: E402
from allocgym.envs.core.errors import AllocgymError, CorruptFileError  # noqa: E402
from allocgym.envs.population.records import Plan, PopulationOutcome  # noqa: E402
from allocgym.real_backend.core import checkpoints  # noqa: E402
from allocgym.real_backend.population import tasks  # noqa: E402
from allocgym.real_backend.population.backend import WORST  # noqa: E402
from allocgym.real_backend.population.experiment import Experiment  # noqa: E402
from allocgym.real_backend.population.scenario import SCENARIOS  # noqa: E402
from allocgym.real_backend.population.stack import Architecture, Stack  # noqa: E402

KNOBS = ("learning_rate", "weight_decay", "momentum")
QUICK = {
    "scenario": "digits",
    "members": 4,
    "horizon": 4,
    "interval": 3,
    "width": 6,
    "valid": 40,
    "test": 40,
    "device": "cpu",
}
ROWS = 6


@pytest.fixture
def make():
    def build(knobs=("learning_rate",), n_max=ROWS, **more):
        problem = make_problem("population", n_max=n_max, knobs=knobs)
        return make_backend(problem, "real", **{**QUICK, **more})

    return build


def plan(backend, donor=None, rates=None, steps=None):
    """A plan from short lists: padding keeps, unnamed parts stay as they are."""
    out = backend.outcome
    own, knobs = np.arange(ROWS)[None].copy(), out.knobs.copy()
    units = np.zeros((1, ROWS), np.int64)
    units[0, :4] = 3 if steps is None else steps
    if donor is not None:
        own[0, :4] = donor
    knobs = np.take_along_axis(knobs, own[..., None], 1)
    if rates is not None:
        knobs[0, :4, 0] = rates
    return Plan(own, knobs, units)


def member(stack, i):
    return {k: np.asarray(v)[i].copy() for k, v in stack.state().items()}


@pytest.mark.parametrize("task", sorted(tasks.TASKS))
def test_the_gradient_is_that_of_automatic_differentiation(task):
    made = tasks.TASKS[task](0, 40, 40, torch.device("cpu"))
    net = Architecture(made.inputs, (7, 5), made.outputs, made.vocabulary, tasks.CONTEXT)
    flat = net.begin(3, 3).double().requires_grad_()
    x, y = (part[:15].reshape(3, 5, *part.shape[1:]) for part in made.train)
    if not made.vocabulary:
        x = x.double()
    y = y.double() if made.outputs == 1 else y
    out, _, _ = net.forward(net.views(flat), x)
    (expected,) = torch.autograd.grad(net.losses(out, y).sum(), flat)
    found = net.gradient(
        flat.detach().float(),
        x if made.vocabulary else x.float(),
        y.float() if made.outputs == 1 else y,
    )
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_stacked_member_trains_as_the_library_would_train_it_alone():
    device = torch.device("cpu")
    made = tasks.digits(0, 40, 40, device)
    stack = Stack(Architecture(64, (6,), 10), 0, 3, 8, device)
    knobs = {
        "learning_rate": np.array([0.1, 0.02, 0.3]),
        "momentum": np.array([0.9, 0.5, 0.3]),
        "weight_decay": np.array([1e-3, 0.1, 1e-6]),
    }
    first = stack.weights.clone()
    picks = stack._picks(np.arange(3), 5, len(made.train[1]))
    stack.train(made.train, np.array([5, 5, 5]), knobs)
    for i in range(3):
        layers = [v[0].clone().requires_grad_() for v in stack.architecture.views(first[i : i + 1])]
        optimiser = torch.optim.SGD(
            layers,
            knobs["learning_rate"][i],
            knobs["momentum"][i],
            weight_decay=knobs["weight_decay"][i],
        )
        for pick in picks[i]:
            h = torch.relu(made.train[0][pick] @ layers[0] + layers[1]) @ layers[2] + layers[3]
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(h, made.train[1][pick]).backward()
            optimiser.step()
        alone = torch.cat([v.detach().reshape(-1) for v in layers])
        np.testing.assert_allclose(stack.weights[i], alone, atol=1e-5)


def test_a_copy_has_the_donors_score_and_state_at_copy_time(make):
    backend = make()
    backend.reset(np.array([0]))
    before = backend.spend(plan(backend))
    donors = [member(backend.stack, i) for i in range(4)]
    # Only member 3 trains: 0 and 1 swap, all at once, and 2 takes over 3 as it was.
    after = backend.spend(plan(backend, donor=[1, 0, 3, 3], steps=[0, 0, 0, 12]))
    np.testing.assert_allclose(after.scores[0, :3], before.scores[0, [1, 0, 3]], rtol=1e-6)
    np.testing.assert_allclose(after.heldout[0, :3], before.heldout[0, [1, 0, 3]], rtol=1e-6)
    for i, source in enumerate([1, 0, 3]):
        for name, value in member(backend.stack, i).items():
            np.testing.assert_array_equal(value, donors[source][name], name)
    assert after.used[0, :4].tolist() == [3, 3, 3, 15]
    assert after.scores[0, 3] != before.scores[0, 3]


def test_members_with_different_steps_do_not_touch_each_other(make):
    one, other = make(), make()
    for backend in (one, other):
        backend.reset(np.array([1]))
    one.spend(plan(one, steps=[3, 0, 9, 0]))
    other.spend(plan(other, steps=[3, 0, 4, 5]))
    np.testing.assert_allclose(one.outcome.scores[0, :2], other.outcome.scores[0, :2], rtol=1e-5)
    assert one.stack.cursor.tolist() == [3, 0, 9, 0]


def test_divergence_stays_with_the_member(make):
    wild, tame = make(learning_rate=(1e-4, 1e30)), make(learning_rate=(1e-4, 1e30))
    for backend, rate in ((wild, 1e25), (tame, 1e-2)):
        backend.reset(np.array([0]))
        for _ in range(2):
            backend.spend(plan(backend, rates=[0.01, rate, 0.02, 0.03]))
    out = wild.outcome
    assert out.alive[0].tolist() == [True, False, True, True, True, True]
    assert out.scores[0, 1] == out.heldout[0, 1] == WORST
    others = [0, 2, 3]
    assert (wild.stack.weights[others] == tame.stack.weights[others]).all()
    assert (out.scores[0, others] == tame.outcome.scores[0, others]).all()
    assert out.left[0] == tame.outcome.left[0]
    # By copying it lives again.
    again = wild.spend(plan(wild, donor=[0, 2, 2, 3], rates=[0.01, 0.01, 0.02, 0.03]))
    assert again.alive.all() and again.scores[0, 1] < 10


@pytest.mark.parametrize("name", ["random", "pbt-1", "mf-pbt", "fire-like", "asha", "wsd"])
def test_agents_conserve_steps_and_keep_knobs_in_bounds(make, name):
    knobs = KNOBS if name in ("random", "pbt-1") else KNOBS[:1]
    backend = make(knobs=knobs)
    agent = catalogue.make(name, backend.problem)
    outcomes = rollout(agent, backend, np.array([2]))
    total = outcomes[0].instance.total[0]
    assert sum(int(o.spent[0]) for o in outcomes) == total == 4 * 4 * 3
    assert outcomes[-1].done.all() and outcomes[-1].left[0] == 0
    assert not outcomes[-1].used[0, 4:].any()
    for before, out in itertools.pairwise(outcomes):
        inst = out.instance
        here = out.knobs[:, :4]
        assert (here >= inst.low[:, None] * (1 - 1e-9)).all()
        assert (here <= inst.high[:, None] * (1 + 1e-9)).all()
        moved = np.take_along_axis(before.used, out.donor, 1)
        assert (out.used >= moved).all() and (out.scores > 0).all()
    assert np.isfinite(agent.memory.objective).all()


def test_a_grid_of_wsd_pays_for_itself_and_goes_on_at_the_best_peak(make):
    full, short = (make(horizon=8) for _ in range(2))
    outcomes = rollout(GridWSD(full.problem), full, np.array([0]))
    assert outcomes[-1].used[0, :4].tolist() == [24] * 4
    outcomes = rollout(GridWSD(short.problem, share=0.5), short, np.array([0]))
    # Four periods of twelve steps over three members, then all to the one kept back.
    assert outcomes[4].used[0, :4].tolist() == [16, 16, 16, 0]
    assert outcomes[-1].used[0, :4].tolist() == [16, 16, 16, 48]
    rates = np.array([o.knobs[0, :4, 0] for o in outcomes[1:]])
    peaks = rates[0, :3]
    best = outcomes[4].scores[0, :3].argmin()
    np.testing.assert_allclose(rates[4, 3], peaks[best])
    assert (np.diff(rates[4:, 3]) <= 0).all() and rates[-1, 3] < peaks[best] / 2


@given(st.lists(st.integers(0, 7), min_size=4, max_size=4), st.data())
def test_any_division_of_steps_is_carried_out_exactly(weights, data):
    stack = test_any_division_of_steps_is_carried_out_exactly.stack
    made = test_any_division_of_steps_is_carried_out_exactly.task
    donor = np.array([data.draw(st.integers(0, 3)) for _ in range(4)])
    cursor = stack.cursor.copy()
    stack.copy(donor)
    still = stack.weights.clone()
    knobs = {
        "learning_rate": np.full(4, 1e-3),
        "momentum": np.full(4, 0.5),
        "weight_decay": np.zeros(4),
    }
    stack.train(made.train, np.array(weights), knobs)
    assert (stack.cursor == cursor[donor] + weights).all()
    changed = (stack.weights != still).any(1).numpy()
    assert (changed == (np.array(weights) > 0)).all()


test_any_division_of_steps_is_carried_out_exactly.task = tasks.teacher(
    0, 10, 10, torch.device("cpu")
)
test_any_division_of_steps_is_carried_out_exactly.stack = Stack(
    Architecture(16, (4,), 1), 0, 4, 4, torch.device("cpu")
)


def test_an_episode_is_a_function_of_its_seed(make):
    runs = []
    for seed in (0, 0, 1):
        backend = make()
        backend.reset(np.array([seed]))
        runs.append(backend.spend(plan(backend, donor=[0, 0, 2, 3])))
    assert runs[0] == runs[1] and runs[0] != runs[2]


def test_the_environment_plays_on_the_real_population():
    import gymnasium as gym

    env = gym.make("allocgym:allocgym/Population-v0", backend="real", **{**QUICK, "horizon": 2})
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    done, total = False, 0.0
    while not done:
        observation, reward, done, _, _ = env.step(env.action_space.sample())
        total += reward
    assert np.isfinite(total)
    env.close()


def test_bad_input_is_told_in_one_sentence(make, tmp_path):
    with pytest.raises(AllocgymError, match=r"batch_size.*changes nothing"):
        make(knobs=("learning_rate", "batch_size"))
    with pytest.raises(AllocgymError, match=r"digitz.*Did you mean 'digits'"):
        make(scenario="digitz")
    with pytest.raises(AllocgymError, match="no 'intervals'"):
        make(intervals=3)
    with pytest.raises(AllocgymError, match="momentum"):
        make(momentum=(0.5, 1.0))
    with pytest.raises(AllocgymError, match="8 members, given 6"):
        make(members=8)
    with pytest.raises(AllocgymError, match="num_envs"):
        make(num_envs=2)
    backend = make()
    with pytest.raises(AllocgymError, match="reset"):
        _ = backend.stack
    backend.reset(np.array([0]))
    with pytest.raises(AllocgymError, match="donor"):
        backend.spend(plan(backend, donor=[0, 0, 0, 5]))
    with pytest.raises(AllocgymError, match="no such file"):
        backend.restore(tmp_path / "nothing")


def test_a_users_experiment_is_checked_before_any_trial_runs():
    problem = make_problem("population", n_max=4)
    good = {"learning_rate": (0.1, 1.0)}
    for changes, message in (
        ({"ranges": {"rate": (0.1, 1.0)}}, "ranges: of"),
        ({"ranges": {"learning_rate": (0.0, 1.0)}}, "0 < low < high"),
        ({"members": 5}, "at most n_max = 4"),
        ({"horizon": 0}, "horizon"),
        ({"interval": 0}, "interval: a number from 1"),
    ):
        arguments = {"ranges": good, "members": 3, "interval": 1, "horizon": 2, "metric": "loss"}
        with pytest.raises(AllocgymError, match=message):
            Experiment(**{**arguments, **changes}).instance(problem)


@pytest.mark.parametrize(
    "given",
    [
        {"horizon": 1e18},
        {"interval": 10**6, "batch": 60000},
        {"width": 10**4, "layers": 60},
        {"noise": float("nan")},
        {"learning_rate": (1.0, 0.1)},
        {"learning_rate": 0.1},
        {"valid": 0},
        {"members": 65},
        {"n_max": 3},
        {"threads": 0},
        {"clock": "sundial"},
        {"hidden": 1},
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_told_before_any_work(make, given):
    with pytest.raises(AllocgymError, match=next(iter(given))) as told:
        make(**given)
    assert "\n" not in str(told.value)


def test_more_examples_than_there_are_is_told(make):
    for task in ("digits", "bytes"):
        with pytest.raises(AllocgymError, match="valid, test: at most"):
            make(scenario=task, test=10**6).reset(np.array([0]))


def test_scenarios_keep_the_digests_of_older_checkpoints():
    found = {name: s.digest() for name, s in SCENARIOS.items()}
    assert found == {
        "digits": "a36b3659dacbe021",
        "teacher": "0cb4b6e21cbe48f2",
        "bytes": "b2a8898d49d21d66",
        "unknown-edge": "1f591d032ea94dd9",
        "hidden-horizon": "a30e62d52fb85871",
    }
    assert SCENARIOS["digits"].replaced({"scenario": "mine"}, "").name == "mine"


def test_checkpoints_are_bit_equal_whole_and_of_this_run(make, tmp_path):
    backend = make(knobs=KNOBS)
    backend.reset(np.array([5]))
    backend.spend(plan(backend, donor=[1, 1, 2, 3], steps=[1, 2, 3, 6]))
    path = tmp_path / "run.ckpt"
    backend.checkpoint(path)
    rest = [plan(backend, donor=[0, 0, 2, 3])] * 2
    expected = [backend.spend(p) for p in rest]
    again = make(knobs=KNOBS)
    again.restore(path)
    assert [again.spend(p) for p in rest] == expected
    assert (again.stack.weights == backend.stack.weights).all()
    assert again.ledger.to_json() == backend.ledger.to_json()
    for more, word in (({"interval": 4}, "setting"), ({"n_max": 5}, "n_max")):
        with pytest.raises(AllocgymError, match=word):
            make(knobs=KNOBS, **more).restore(path)
    with pytest.raises(AllocgymError, match="knobs"):
        make().restore(path)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFileError):
        again.restore(path)


# The command line in a process that kills itself while period 3 or the writing after it is under way.
SUICIDE = """
    import os, signal, sys
    from allocgym.__main__ import main
    from allocgym.real_backend.core import checkpoints
    from allocgym.real_backend.population.stack import Stack

    def deadly(function, calls):
        def wrapped(*arguments, **named):
            deadly.count += 1
            if deadly.count == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **named)
        deadly.count = 0
        return wrapped

    if {place!r} == "training":
        Stack._together = deadly(Stack._together, 3)
    else:
        os.replace = deadly(os.replace, {calls})
    sys.argv = ["allocgym", *{arguments!r}]
    main()
"""


def _allocgym(*arguments):
    command = [sys.executable, "-m", "allocgym", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


DEPLOY = ["deploy", "population", "--agent", "pbt-1", "--scenario", "digits", "--seed", "3"]
for _setting in "members=4 horizon=5 interval=8 width=6 valid=40 test=40 device=cpu".split():
    DEPLOY += ["--set", _setting]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    _allocgym(*DEPLOY, "--folder", str(folder))
    return folder


@pytest.mark.parametrize("place", ["training", "writing"])
def test_a_killed_run_resumes_bit_equal(undisturbed, tmp_path, place):
    killed = tmp_path / "killed"
    script = SUICIDE.format(place=place, calls=4, arguments=[*DEPLOY, "--folder", str(killed)])
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert (
        len(list(killed.glob("checkpoints/*.ckpt"))) < 3 and not (killed / "ledger.json").exists()
    )
    _allocgym("resume", str(killed))
    ends = []
    for folder in (undisturbed, killed):
        file = max(folder.glob("**/period-*.ckpt"))
        ends.append((file.name, *checkpoints.load(file)))
    assert ends[0][0] == ends[1][0]
    for name, tensor in ends[0][1].items():
        assert torch.equal(tensor, ends[1][1][name]), name
    assert ends[0][2]["outcome"] == ends[1][2]["outcome"]
    assert PopulationOutcome.from_json(ends[0][2]["outcome"]).done.all()
