import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocgym.envs.core.builder import make_backend
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.data_mixing.problem import DataMixing
from allocgym.simulators.data_mixing.scenario import SCENARIOS

PROBLEM = DataMixing()
NAMES = sorted(SCENARIOS)


def started(scenario, seeds, **arguments):
    backend = make_backend(PROBLEM, "twin", scenario=scenario, num_envs=len(seeds), **arguments)
    return backend, PROBLEM.begin(backend.reset(np.asarray(seeds)))


def actions(seed, horizon, batch, spread=1.0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-spread, spread, (horizon, batch, PROBLEM.n_max)).astype(np.float32)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.full((3, 8), np.nan), "action: NaN or infinity"),
        (np.full((3, 8), np.inf), "action: NaN or infinity"),
        (np.where(np.eye(3, 8) > 0, [np.inf], [-np.inf]), "action: NaN or infinity"),
        (np.zeros((3, 7)), "action: shape"),
        (np.zeros(8), "action: shape"),
        (np.zeros((3, 8), np.int64), "action: dtype int64"),
        (np.zeros((3, 8), bool), "action: dtype bool"),
    ],
)
def test_an_unusable_action_is_refused_by_name(twin, problem, action, message):
    with pytest.raises(AllocgymError, match=message):
        problem.decode(action, problem.begin(twin.outcome))


def test_zero_is_the_prior(twin, problem):
    memory = problem.begin(twin.outcome)
    decision = problem.decode(np.zeros((3, 8)), memory)
    inst = memory.instance
    np.testing.assert_allclose(decision.fractions, inst.prior, atol=inst.floor.max() / 320 + 0.1)
    floor = inst.floor
    room = inst.budget[:, None] - floor.sum(1, keepdims=True)
    assert (np.abs(decision.units - floor - inst.prior * room) < 1).all()


@settings(max_examples=30)
@given(st.sampled_from(NAMES), st.integers(0, 10_000), st.sampled_from([0.3, 1.0]))
def test_every_decision_of_an_episode_keeps_budget_floors_and_limits(scenario, seed, spread):
    backend, memory = started(scenario, [seed, seed + 1])
    inst = memory.instance
    for action in actions(seed, backend.spec.horizon, 2, spread):
        decision = PROBLEM.decode(action, memory)
        left = inst.limit - memory.seen
        np.testing.assert_array_equal(decision.units.sum(1), inst.budget)
        np.testing.assert_array_equal(PROBLEM.cost(decision), inst.budget)
        assert (decision.units >= np.minimum(inst.floor, left)).all()
        assert (decision.units <= left).all()
        assert not decision.units[~inst.present].any()
        PROBLEM.check(decision, memory)
        memory = PROBLEM.update(memory, backend.spend(decision))
    np.testing.assert_array_equal(backend.ledger.left, 0)
    assert (memory.seen <= inst.limit).all()


@settings(max_examples=30)
@given(st.sampled_from(NAMES), st.integers(0, 10_000))
def test_a_decision_can_be_told_as_an_action(scenario, seed):
    backend, memory = started(scenario, [seed, seed + 1])
    for period, action in enumerate(actions(seed, backend.spec.horizon, 2)):
        decision = PROBLEM.decode(action, memory)
        told = PROBLEM.action_of(decision, memory)
        assert told.dtype == np.float32 and PROBLEM.action_space.contains(told[0])
        again = PROBLEM.decode(told, memory)
        np.testing.assert_array_equal(again.units, decision.units, f"period {period}")
        memory = PROBLEM.update(memory, backend.spend(decision))


@pytest.mark.parametrize("period", range(10))
def test_the_round_trip_holds_once_a_domain_has_run_out(period):
    backend, memory = started("low-resource", [3, 4, 5], epoch_cap=1.0, floor=0.3)
    for action in actions(0, period, 3):
        memory = PROBLEM.update(memory, backend.spend(PROBLEM.decode(action, memory)))
    decision = PROBLEM.decode(actions(1, 1, 3)[0], memory)
    again = PROBLEM.decode(PROBLEM.action_of(decision, memory), memory)
    np.testing.assert_array_equal(again.units, decision.units)


def test_padding_is_given_nothing_even_where_only_unasked_domains_have_room():
    # All of the budget is asked for one domain that can supply little of it.
    backend, memory = started("low-resource", np.arange(12), floor=0.0)
    inst = memory.instance
    one = np.zeros((12, 8))
    one[:, 0] = 1
    for _ in range(3):
        decision = PROBLEM.round(one, memory)
        assert not decision.units[~inst.present].any()
        memory = PROBLEM.update(memory, backend.spend(decision))


def test_a_unit_of_padding_is_against_the_rules(problem, make_backend):
    backend = make_backend(scenario="skills", num_envs=1)
    memory = problem.begin(backend.reset(np.array([0])))
    padding = np.flatnonzero(~memory.instance.present[0])[0]
    units = problem.decode(np.zeros((1, 8)), memory).units.copy()
    units[0, 0] -= 1
    units[0, padding] += 1
    with pytest.raises(AllocgymError, match="units"):
        problem.check(Shares(units), memory)


def test_check_refuses_what_breaks_the_rules(twin, problem):
    memory = problem.begin(twin.outcome)
    good = problem.decode(np.zeros((3, 8)), memory).units
    problem.check(Shares(good), memory)
    more, swapped = good.copy(), good.copy()
    more[:, 0] += 1
    swapped[:, 0], swapped[:, 1] = good[:, 0] + good[:, 1], 0
    for units, message in [
        (more, "must sum to the period's budget"),
        (swapped, "between"),
        (good.astype(float), "integers"),
        (good[:2], "integers of shape"),
    ]:
        with pytest.raises(AllocgymError, match=message):
            problem.check(Shares(units), memory)


@pytest.mark.parametrize("scenario", NAMES)
def test_every_split_within_reach_of_the_prior_is_representable(scenario):
    # A clairvoyant static split is a point of the simplex above the floors.
    _, memory = started(scenario, np.arange(40))
    rng = np.random.default_rng(0)
    inst = memory.instance
    wanted = rng.dirichlet(np.full(8, 0.5), 40) * inst.present + 0.005 * inst.present
    floor = inst.floor / inst.budget[:, None]
    wanted = floor + wanted / wanted.sum(1, keepdims=True) * (1 - floor.sum(1, keepdims=True))
    decision = PROBLEM.round(wanted, memory)
    again = PROBLEM.decode(PROBLEM.action_of(decision, memory), memory)
    assert np.abs(again.units - decision.units).max() <= 0.01 * 320


@pytest.mark.parametrize("scenario", NAMES)
def test_permuting_the_domains_permutes_observation_and_decision(scenario):
    backend, memory = started(scenario, np.arange(5))
    for action in actions(0, 3, 5):
        memory = PROBLEM.update(memory, backend.spend(PROBLEM.decode(action, memory)))
    order = np.random.default_rng(1).permutation(8)
    moved = memory.map(lambda a: a[:, order] if a.ndim > 1 and a.shape[1] == 8 else a)
    moved.instance.graph = moved.instance.graph[:, :, order]
    one, other = PROBLEM.encode(memory), PROBLEM.encode(moved)
    np.testing.assert_allclose(one["claimants"][:, order], other["claimants"], atol=1e-4)
    np.testing.assert_allclose(one["context"], other["context"], atol=1e-6)
    np.testing.assert_array_equal(one["present"][:, order], other["present"])
    action = actions(2, 1, 5)[0]
    np.testing.assert_array_equal(
        PROBLEM.decode(action, memory).units[:, order],
        PROBLEM.decode(action[:, order], moved).units,
    )


@pytest.mark.parametrize("scenario", NAMES)
def test_observations_are_finite_and_in_their_space(scenario):
    backend, memory = started(scenario, np.arange(20))
    space = PROBLEM.observation_space
    for action in actions(0, backend.spec.horizon, 20):
        seen = PROBLEM.encode(memory)
        assert not seen["claimants"][~memory.instance.present].any()
        for i in range(20):
            assert space.contains({k: np.ascontiguousarray(v[i]) for k, v in seen.items()})
        memory = PROBLEM.update(memory, backend.spend(PROBLEM.decode(action, memory)))


@pytest.mark.parametrize("extra", [{}, {"epsilon": (0.0, 0.01)}, {"objective": "worst"}])
def test_the_return_is_the_fall_of_the_objective_less_the_penalty(extra):
    backend, memory = started("continual-pretraining", np.arange(6), **extra)
    first = memory.objective
    returns = np.zeros(6)
    for action in actions(0, backend.spec.horizon, 6):
        after = PROBLEM.update(memory, backend.spend(PROBLEM.decode(action, memory)))
        returns += sum(PROBLEM.reward(memory, after).values())
        memory = after
    expected = first - memory.objective - memory.instance.penalty * memory.violation
    np.testing.assert_allclose(returns, expected, atol=1e-12)
    if "epsilon" in extra:
        assert memory.violation.max() > 0


def test_a_measurement_that_cannot_be_trusted_is_not_believed(twin, problem):
    memory = problem.begin(twin.outcome)
    outcome = twin.spend(problem.decode(np.zeros((3, 8)), memory))
    outcome.valid = np.array([True, False, True])
    after = problem.update(memory, outcome)
    np.testing.assert_array_equal(after.last[1], memory.last[1])
    np.testing.assert_allclose(after.last[0], np.log(outcome.losses[0]))


def test_decoding_one_environment_does_not_depend_on_the_others():
    # Ties are broken by index; a neighbour at its limit must not break them otherwise.
    _, memory = started("low-resource", [0, 1], floor=0.0, budget=39)
    rng = np.random.default_rng(0)
    inst = memory.instance
    inst.limit[1] = np.where(inst.present[1], 30, 1)
    inst.limit[0] = 10_000
    push = np.zeros(8, np.float32)
    push[0] = 1
    for _ in range(500):
        chance = rng.dirichlet(np.ones(8)) * inst.present[0]
        halves = rng.multinomial(78, chance / chance.sum())
        inst.prior[0] = halves / 78
        action = np.stack([np.zeros(8, np.float32), push])
        both = PROBLEM.decode(action, memory).units[0]
        lone = PROBLEM.decode(action[:1], memory.rows(slice(0, 1))).units[0]
        np.testing.assert_array_equal(both, lone)


def test_tensors_are_encoded_as_arrays_are():
    torch = pytest.importorskip("torch")
    from allocgym.envs.core.builder import make_backend, make_problem

    problem = make_problem("data-mixing")
    backend = make_backend(
        problem, "twin", scenario="continual-pretraining", num_envs=16, epsilon=(0.05, 0.1)
    )
    arrays = backend.reset(np.arange(16))

    def tensors(record):
        return record.map(lambda a: torch.as_tensor(np.ascontiguousarray(a)))

    one, other = problem.begin(arrays), problem.begin(tensors(arrays))
    for turn in range(3):
        action = np.random.default_rng(turn).uniform(-1, 1, (16, 8)).astype(np.float32)
        arrays = backend.spend(problem.decode(action, one))
        one, other = problem.update(one, arrays), problem.update(other, tensors(arrays))
        for name, value in problem.encode(other).items():
            np.testing.assert_allclose(problem.encode(one)[name], value, rtol=1e-5, atol=1e-5)
