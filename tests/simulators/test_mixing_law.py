import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocgym.envs.core.scenario import choose
from allocgym.simulators.data_mixing import law as laws
from allocgym.simulators.data_mixing.costs import CostModel
from allocgym.simulators.data_mixing.law import R_STAR, Law
from allocgym.simulators.data_mixing.sampling import sample
from allocgym.simulators.data_mixing.scenario import SCENARIOS


def law_of(n=2, batch=1, **fields):
    shape = (n, batch)
    values = {
        "floor": np.full(shape, 0.5),
        "log_gain": np.zeros((n, n, batch)),
        "exponent": np.full((n, n, batch), 0.5),
        "offset": np.full(batch, 0.1),
        "forget": np.zeros(shape),
        "neglect": np.zeros(shape),
        "rate": np.zeros(shape),
        "rewarm": np.zeros(shape),
        "recency": np.zeros(shape),
        "unique": np.full(shape, 1e9),
        "needs": np.zeros((n, n, batch)),
        "threshold": np.zeros(shape),
        "softness": np.ones(shape),
        "start": np.zeros(shape),
        "recent": np.full(shape, 1 / n),
        "rate_start": np.full(batch, 0.1),
        "present": np.ones(shape),
    }
    return Law(**(values | fields))


def step(law, state, units, effort=0.4, lr=0.5, before=0.5):
    units = np.asarray(units, float).reshape(-1, 1)
    full = [np.array([float(v)]) for v in (effort, lr, before)]
    return laws.advance(law, state, units, *full)


def test_a_step_by_hand():
    law = law_of(
        forget=np.array([[0.3], [0.1]]),
        neglect=np.array([[0.2], [0.0]]),
        rate=np.array([[0.4], [0.2]]),
        recency=np.array([[0.05], [0.1]]),
        start=np.array([[2.0], [0.0]]),
        recent=np.array([[1.0], [0.0]]),
        log_gain=np.log([[[2.0], [0.5]], [[0.25], [3.0]]]),
    )
    state = step(law, laws.begin(law), [80, 240])
    d = 0.4 * 0.5
    f = [0.3 + 0.2 * 0.035 / (0.25 + 0.035), 0.1]
    kept = np.exp(-np.array(f) * d)
    memory = np.array([2.0, 0.0]) * kept + np.array([0.25, 0.75]) * (1 - kept) / f
    recent = np.array([0.25 + 0.75 * np.exp(-d / 0.03), 0.75 - 0.75 * np.exp(-d / 0.03)])
    np.testing.assert_allclose(state.memory[:, 0], memory, rtol=1e-7)
    np.testing.assert_allclose(state.recent[:, 0], recent, rtol=1e-12)
    np.testing.assert_array_equal(state.seen[:, 0], [80, 240])
    known = np.array([[2.0, 0.5], [0.25, 3.0]]) @ np.sqrt(memory + 0.1)
    fast = np.array([0.05, 0.1]) * np.log((recent + 0.05) / 1.05)
    expected = 0.5 + 1 / known + np.array([0.4, 0.2]) * 0.5 - fast
    got = laws.losses(law, state, np.array([0.5]))
    np.testing.assert_allclose(got[:, 0], expected, rtol=1e-7)


def test_the_short_form_is_the_whole_matrix():
    """C_i (p_i + cross_i sum of the others) against the matrix that says the same."""
    rng = np.random.default_rng(0)
    gain, cross = rng.uniform(0.5, 2, (3, 4)), rng.uniform(0.1, 0.9, (3, 4))
    exponent, memory = rng.uniform(0.2, 1, (3, 4)), rng.uniform(0, 3, (3, 4))
    eye = np.eye(3)[:, :, None]
    matrix = gain[:, None] * (eye + (1 - eye) * cross[:, None])
    whole = law_of(3, 4, log_gain=np.log(matrix), exponent=np.tile(exponent, (3, 1, 1)))
    short = law_of(3, 4, log_gain=None, gain=gain, cross=cross, exponent=exponent)
    np.testing.assert_allclose(laws.known(short, memory), laws.known(whole, memory), rtol=1e-12)


def test_a_rise_of_the_rate_disturbs_and_fades_faster_with_own_data():
    law = law_of(rewarm=np.full((2, 1), 0.2), rate_start=np.array([0.1]))
    risen = step(law, laws.begin(law), [80, 240], effort=0.5, lr=0.8, before=0.1)
    np.testing.assert_allclose(risen.shock, np.log10([[8.0], [8.0]]))
    later = step(law, risen, [80, 240], effort=0.5, lr=0.6, before=0.8)
    fading = np.exp(-0.3 * (1 + law.b * np.array([[0.25], [0.75]])) / law.tau_z)
    np.testing.assert_allclose(later.shock, np.log10(8.0) * fading)
    calm = dataclasses.replace(later, shock=np.zeros((2, 1)))
    lr = np.array([0.6])
    extra = laws.losses(law, later, lr) - laws.losses(law, calm, lr)
    expected = -0.2 * later.shock * np.log((later.recent + law.c) / (1 + law.c))
    np.testing.assert_allclose(extra, expected, rtol=1e-9)


def test_two_half_steps_are_one_step():
    law = law_of(forget=np.full((2, 1), 0.7), neglect=np.full((2, 1), 0.3))
    once = step(law, laws.begin(law), [64, 256], effort=1.0)
    twice = step(law, step(law, laws.begin(law), [32, 128], effort=0.5), [32, 128], effort=0.5)
    np.testing.assert_allclose(twice.memory, once.memory, rtol=1e-8)
    np.testing.assert_allclose(twice.recent, once.recent, rtol=1e-12)


@given(st.lists(st.integers(0, 320), min_size=2, max_size=8), st.randoms(use_true_random=False))
def test_without_forgetting_only_totals_count(firsts, random):
    law = law_of(forgets=False, rate=np.ones((2, 1)), recency=np.ones((2, 1)))
    shuffled = list(firsts)
    random.shuffle(shuffled)
    ends = []
    for order in (firsts, shuffled):
        state = laws.begin(law)
        for first in order:
            state = step(law, state, [first, 320 - first])
        ends.append(laws.losses(law, state, np.array([0.5])))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)


def test_with_forgetting_the_order_counts():
    law = law_of(forget=np.full((2, 1), 1.0))
    early = step(law, step(law, laws.begin(law), [320, 0]), [0, 320])
    late = step(law, step(law, laws.begin(law), [0, 320]), [320, 0])
    assert late.memory[0, 0] > early.memory[0, 0] * 1.1


def test_repeated_data_is_worth_what_muennighoff_says():
    # 100 units seen four times: U + U R* (1 - exp(-3 / R*)) effective ones.
    unique, seen = np.array([[100.0]]), np.array([[400.0]])
    expected = 100 + 100 * R_STAR * (1 - np.exp(-3 / R_STAR))
    assert expected == pytest.approx(372.542, abs=0.5)
    assert laws.effective(unique, seen)[0, 0] == pytest.approx(expected)
    assert laws.effective(unique, np.array([[60.0]]))[0, 0] == 60
    pieces = np.zeros((1, 1))
    total = 0.0
    for units in (50.0, 100.0, 250.0):
        total += units * laws.freshness(unique, pieces, np.array([[units]]))[0, 0]
        pieces = pieces + units
    assert total == pytest.approx(expected)


def test_fresh_data_is_worth_itself_and_stale_data_less():
    law = law_of(unique=np.array([[100.0], [1e9]]), repeats=True, forgets=False)
    state = step(law, laws.begin(law), [80, 80], effort=1, lr=1)
    np.testing.assert_allclose(state.memory, [[0.5], [0.5]], rtol=1e-9)
    later = step(law, state, [80, 80], effort=1, lr=1)
    gain = later.memory - state.memory
    assert gain[0, 0] < 0.5 * 0.999 and gain[1, 0] == pytest.approx(0.5, rel=1e-6)


def test_a_gate_opens_as_its_prerequisite_is_learned():
    needs = np.array([[[0.0], [0.0]], [[1.0], [0.0]]])  # skill 1 waits for skill 0
    law = law_of(
        needs=needs,
        gated=True,
        threshold=np.full((2, 1), 1.5),
        softness=np.full((2, 1), 0.1),
        log_gain=np.log([[[1.0], [1e-9]], [[1e-9], [1.0]]]),
    )
    closed = laws.openness(law, laws.begin(law), np.array([0.5]))
    loss = 0.5 + 1 / np.sqrt(0.1)
    assert closed[0, 0] == 1
    assert closed[1, 0] == pytest.approx(1 / (1 + np.exp((loss - 1.5) / 0.1)), rel=1e-3)
    learned = laws.State(
        np.array([[4.0], [0.0]]), np.full((2, 1), 0.5), np.zeros((2, 1)), np.zeros((2, 1))
    )
    opened = laws.openness(law, learned, np.array([0.5]))
    assert opened[1, 0] > 0.99
    before, after = (step(law, s, [0, 320]).memory[1, 0] for s in (laws.begin(law), learned))
    assert after > 100 * before > 0


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_tensors_obey_the_same_law(make_backend, problem, scenario):
    torch = pytest.importorskip("torch")
    backend = make_backend(scenario=scenario, num_envs=5)
    backend.reset(np.arange(5))
    dynamics = backend.dynamics(lambda a: torch.as_tensor(np.ascontiguousarray(a)))
    state = dynamics.begin()
    rng = np.random.default_rng(0)
    for period in range(3):
        memory = problem.begin(backend.outcome)
        units = problem.round(
            rng.dirichlet(np.ones(8), 5) * memory.instance.present + 1e-3, memory
        ).units
        outcome = backend.spend(type(problem).decision_type(units))
        tensor = torch.as_tensor(units.T.astype(float).copy())
        state, values = dynamics.step(state, tensor, period)
        np.testing.assert_allclose(values.numpy().T, outcome.heldout, atol=1e-6)


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_an_instance_depends_on_its_seed_alone(scenario):
    made = SCENARIOS[scenario]
    whole = sample(made, np.array([5, 2, 9, 2]), 8, CostModel())
    for row, seed in enumerate([5, 2, 9, 2]):
        lone = sample(made, np.array([seed]), 8, CostModel())
        assert whole.instance.rows(np.array([row])).to_json() == lone.instance.to_json()
        for field in dataclasses.fields(Law):
            one, other = getattr(whole.law, field.name), getattr(lone.law, field.name)
            if isinstance(one, np.ndarray):
                np.testing.assert_array_equal(one[..., row : row + 1], other, field.name)
            else:
                assert one == other
        np.testing.assert_array_equal(whole.noise[:, row], lone.noise[:, 0])
    assert not np.array_equal(whole.instance.prior[0], whole.instance.prior[2])


@settings(max_examples=30)
@given(st.sampled_from(sorted(SCENARIOS)), st.integers(0, 2**40))
def test_instances_are_well_formed(name, seed):
    inst = sample(SCENARIOS[name], np.array([seed]), 8, CostModel()).instance
    present = inst.present[0]
    low, high = SCENARIOS[name].domains
    assert low <= present.sum() <= high
    np.testing.assert_allclose([inst.prior.sum(), inst.weight.sum()], 1, rtol=1e-12)
    assert (inst.prior[0, present] > 0).all() and not inst.prior[0, ~present].any()
    assert inst.floor.sum() <= inst.budget[0]
    assert inst.limit[0, present].sum() >= (inst.budget * inst.horizon)[0]


def test_more_domains_than_rows_are_refused():
    with pytest.raises(Exception, match="n_max: the scenario has up to 8 domains, given 4"):
        sample(SCENARIOS["scratch"], np.arange(2), 4, CostModel())


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("scrach", {}, "Did you mean 'scratch'"),
        ("scratch", {"horison": 4}, "Did you mean 'horizon'"),
        ("scratch", {"objective": "meen"}, "Did you mean 'mean'"),
        ("scratch", {"schedules": ("cosin",)}, "Did you mean 'cosine'"),
        ("scratch", {"family": "regmixx"}, "Did you mean 'regmix'"),
        ("scratch", {"domains": 140}, "domains: a number from 2 to 128"),
        ("scratch", {"horizon": 0}, "horizon: a number from 1"),
        ("scratch", {"floor": 1.5}, "floor: a number from 0 to 1"),
    ],
)
def test_mistakes_are_told_in_one_sentence(name, overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        choose(SCENARIOS, name, overrides)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("scenario", ["scratch", "low-resource"])
def test_many_domains_fit(make_backend, problem, scenario):
    backend = make_backend(n_max=32, scenario=scenario, num_envs=2, domains=(20, 32))
    outcome = backend.reset(np.arange(2))
    assert np.isfinite(outcome.losses).all()


def test_data_that_cannot_last_is_refused_when_it_is_asked_for():
    # Two domains, both small: 2 x 16 epochs of at most a tenth of the budget, capped at one.
    with pytest.raises(ValueError, match=r"small|limit|epoch_cap"):
        choose(SCENARIOS, "low-resource", dict(domains=(2, 2), small=(2, 2), epoch_cap=1.0))


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_the_compiled_step_is_the_array_form(scenario):
    sampled = sample(SCENARIOS[scenario], np.arange(40), 8, CostModel())
    law, effort = sampled.law, sampled.instance.effort
    there = law.present > 0
    rng = np.random.default_rng(0)
    state, before = laws.begin(law), law.rate_start
    for lr in (np.full(40, 0.3), np.full(40, 1.0), np.full(40, 0.05)):
        units = rng.integers(1, 90, law.present.shape) * law.present
        expected = laws.advance(law, state, units, effort, lr, before)
        state, value = laws.train(law, state, units, effort, lr, before)
        for name in ("memory", "recent", "shock", "seen"):
            got, wanted = getattr(state, name)[there], getattr(expected, name)[there]
            np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(value[there], laws.losses(law, state, lr)[there], rtol=1e-10)
        before = lr
