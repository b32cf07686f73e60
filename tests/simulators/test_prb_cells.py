"""Twin and SimPy cells: conservation, shared draws, delays, borrowing, the control."""

import copy
import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import allocgym  # noqa: F401
from allocgym.envs.core.builder import build
from allocgym.envs.core.contracts import Shares
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.prb_slicing.problem import all_splits
from allocgym.simulators.core import public_data
from allocgym.simulators.prb_slicing import (
    calibration,
    fluid,
    scheduling,
    stepping,
    tables,
    traffic,
)

public = pytest.mark.skipif(
    not public_data.available("prb/tractor/raw"), reason="the recorded traces are not here"
)
ENGINES = ("twin", "simpy")


def make(engine, num_envs=1, **arguments):
    return build("prb-slicing", engine, num_envs=num_envs, **arguments)


def play(cell, units, periods, seeds):
    cell.reset(seeds)
    decision = Shares(np.tile(units, (len(seeds), 1)))
    return [cell.spend(decision) for _ in range(periods)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"load": 6.0},
        {"borrow": True, "load": 3.0},
        {"pool": True, "load": 3.0},
        {"schedulers": ["rr", "wf", "softmax"], "load": 4.0},
        {"schedulers": "pf", "load": 4.0},
        {"technology": "nr", "width": 51, "numerology": 1},
        {"whole_blocks": True},
    ],
    ids=str,
)
def test_every_byte_is_delivered_dropped_or_waiting(engine, arguments):
    cell = make(engine, 2, mix="132", horizon=12, **arguments)
    groups = cell.scenario.carrier.groups
    outcomes = play(cell, (3, 5, groups - 8), 12, np.array([3, 4]))
    waiting = np.zeros_like(outcomes[0].backlog)
    for o in outcomes:
        waiting = waiting + o.arrived - o.served - o.dropped
        np.testing.assert_allclose(waiting, o.backlog, atol=1e-3)
        assert (o.granted >= 0).all() and (o.backlog <= cell.scenario.queue + 1e-3).all()
        room = o.prbs.sum() if arguments.get("borrow") or arguments.get("pool") else o.prbs
        assert (o.granted.sum((1, 2) if np.ndim(room) == 0 else 2) <= room * 250 + 1e-3).all()
        assert (o.late50 <= o.late + 1e-6)[:, 1].all()
    late, packets_ = (sum(getattr(o, k) for o in outcomes) for k in ("late", "packets"))
    assert (late <= packets_ + 1e-6).all()


@pytest.mark.parametrize("load", [1.0, 4.0])
def test_twin_and_simpy_move_the_same_bytes(load):
    seeds = np.arange(4)
    twin, simpy = (
        play(make(e, 4, mix="134", horizon=60, load=load), (3, 5, 9), 60, seeds) for e in ENGINES
    )
    for name in ("arrived", "served"):
        a, b = (sum(getattr(o, name).sum() for o in run) for run in (twin, simpy))
        assert abs(a / b - 1) < 0.02, name
    assert sum(o.packets[:, 1].sum() for o in twin) == sum(o.packets[:, 1].sum() for o in simpy)


def test_the_twins_p99_is_simpys_within_a_tenth():
    found = []
    for engine in ENGINES:
        cell = make(engine, 6, mix="134", horizon=80, histogram=True)
        play(cell, (3, 5, 9), 80, np.arange(6))
        found.append(fluid.quantile(cell.histogram[1].sum(0), 0.99))
    assert abs(found[0] / found[1] - 1) < 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_traffic_and_channel_do_not_depend_on_the_policy(engine):
    runs = [
        play(make(engine, 2, mix="123", horizon=6), u, 6, np.array([7, 8]))
        for u in ((1, 1, 15), (5, 6, 6))
    ]
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a.arrived, b.arrived)
        np.testing.assert_array_equal(a.cqi, b.cqi)


def test_a_cell_of_a_batch_is_the_cell_alone():
    many = play(make("twin", 5, horizon=6, mix="222", load=3.0), (3, 5, 9), 6, np.arange(10, 15))
    for i in range(5):
        one = play(
            make("twin", 1, horizon=6, mix="222", load=3.0), (3, 5, 9), 6, np.array([10 + i])
        )
        for a, b in zip(many, one, strict=True):
            assert a.rows([i]) == b


def test_a_partial_reset_leaves_the_others_alone():
    for engine in ENGINES:
        cell = make(engine, 3, mix="111", horizon=9)
        before = play(cell, (3, 5, 9), 2, np.arange(3))[-1]
        after = cell.reset(np.array([9, 9, 9]), np.array([False, True, False]))
        keep = np.array([0, 2])
        assert after.rows(keep) == before.rows(keep)
        assert after.rows([1]) == make(engine, 1, mix="111", horizon=9).reset(np.array([9]))
        again = cell.spend(Shares(np.tile((3, 5, 9), (3, 1))))
        fresh = make(engine, 1, mix="111", horizon=9)
        first = play(fresh, (3, 5, 9), 1, np.array([9]))[0]
        assert again.rows([1]) == first
        np.testing.assert_array_equal(again.period, [3, 1, 3])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("more", [{}, {"schedulers": "pf"}, {"harq": 0.2}, {"whole_blocks": True}])
def test_a_state_goes_on_as_before(engine, more):
    arguments = {"mix": "134", "horizon": 12, "load": 6.0, "histogram": True, **more}
    cell, other = (make(engine, 2, **arguments) for _ in range(2))
    seen = play(cell, (3, 5, 9), 5, np.array([1, 2]))[-1]
    assert seen.backlog.sum() > 0
    state = cell.get_state()
    sent = [pickle.loads(pickle.dumps(cell)), copy.deepcopy(cell)]
    decision = Shares(np.tile((1, 8, 8), (2, 1)))
    expected = [cell.spend(decision) for _ in range(4)]
    other.set_state(state)
    assert other.outcome == seen
    for one in [other, *sent]:
        assert [one.spend(decision) for _ in range(4)] == expected
        np.testing.assert_array_equal(one.histogram, cell.histogram)
        assert one.ledger.to_json() == cell.ledger.to_json()
    cell.set_state(state)
    assert [cell.spend(decision) for _ in range(4)] == expected


def test_a_packet_that_waits_keeps_its_age_through_a_saved_state():
    cell = make("simpy", mix="222", horizon=20, load=8.0)
    kept = []
    for saved in (False, True):
        cell.reset(np.array([3]))
        delays = []
        for _ in range(20):
            delays.append(cell.spend(Shares(np.array([[1, 1, 15]]))).delay[0, 1])
            if saved:
                cell.set_state(cell.get_state())
        kept.append(delays)
    assert max(kept[0]) > 250
    assert kept[0] == kept[1]


def test_a_saved_state_is_not_the_running_one():
    for engine in ENGINES:
        cell = make(engine, 1, mix="134", horizon=9, load=6.0)
        play(cell, (3, 5, 9), 3, np.array([1]))
        first, second = cell.get_state(), cell.get_state()
        cell.spend(Shares(np.array([[1, 8, 8]])))
        assert first["state"] == second["state"]


def test_a_preview_is_what_comes_and_leaves_no_trace():
    cell = make("twin", 2, mix="123", horizon=9)
    play(cell, (3, 5, 9), 3, np.array([1, 2]))
    seen = {g: cell.preview(g) for g in (2, 6, 9)}
    outcome = cell.spend(Shares(np.tile((2, 6, 9), (2, 1))))
    for i, g in enumerate((2, 6, 9)):
        np.testing.assert_allclose(seen[g].served[:, i], outcome.served[:, i])
        np.testing.assert_allclose(seen[g].late[:, i], outcome.late[:, i])
    with pytest.raises(AllocgymError, match="hard masks"):
        borrowing = make("twin", borrow=True)
        borrowing.reset(np.array([0]))
        borrowing.preview(3)


@pytest.mark.parametrize("engine", ENGINES)
def test_borrowing_and_pooling_never_deliver_less(engine):
    def total(**arguments):
        cell = make(engine, 2, mix="134", horizon=30, load=4.0, **arguments)
        return sum(o.granted.sum() for o in play(cell, (3, 5, 9), 30, np.arange(2)))

    hard = total()
    assert total(borrow=True) >= hard - 1e-3 and total(pool=True) >= hard - 1e-3


def test_more_blocks_never_hurt_urllc():
    scores = []
    for groups in (1, 2, 4, 8, 15):
        cell = make("twin", 8, mix="121", horizon=40)
        outcomes = play(cell, (1, groups, 16 - groups), 40, np.arange(8))
        scores.append(sum(o.late[:, 1].sum() for o in outcomes))
    assert all(b <= a + 1e-6 for a, b in itertools.pairwise(scores))


def test_in_the_control_a_static_split_wins():
    results = [
        sum(
            o.served.sum()
            for o in play(make("twin", 1, scenario="control", horizon=8), u, 8, np.array([0]))
        )
        for u in all_splits(17, 3)[::7]
    ]
    assert max(results) > min(results)
    outcomes = play(make("twin", 1, scenario="control", horizon=8), (1, 6, 10), 8, np.array([0]))
    np.testing.assert_allclose(outcomes[3].served, outcomes[7].served)


@settings(max_examples=60, deadline=None)
@given(need=st.lists(st.floats(0, 50), min_size=1, max_size=6), capacity=st.floats(0, 120))
def test_every_scheduler_conserves_its_blocks(need, capacity):
    w, c = np.array(need)[:, None], np.array([capacity])
    carries = np.linspace(10, 40, len(need))[:, None]
    equal = np.empty_like(w)
    stepping.share_equally(w, c, equal)
    for given_ in (
        fluid.water_fill(w, c),
        equal,
        fluid.softmax_fill(w, c, 1.0),
        fluid.fair_fill(w, c, carries, np.ones_like(w)),
    ):
        np.testing.assert_allclose(given_.sum(), min(capacity, sum(need)), atol=1e-6)
        assert (given_ >= -1e-9).all() and (given_ <= w + 1e-6).all()
    whole = [float(int(x)) for x in need]
    for grants in (
        scheduling.water(need, capacity),
        scheduling.round_robin(need, capacity, 3),
        scheduling.softmax(need, capacity),
        scheduling.proportional_fair(need, capacity, need),
        scheduling.whole_water(whole, float(int(capacity)), 2),
    ):
        assert sum(grants) <= capacity + 1e-6 and min(grants) >= 0
        assert all(g <= x + 1e-6 for g, x in zip(grants, need, strict=True))


def test_water_filling_is_max_min():
    np.testing.assert_allclose(
        fluid.water_fill(np.array([[1.0], [5.0], [9.0]]), np.array([9.0]))[:, 0], [1, 4, 4]
    )
    assert scheduling.water([9.0, 1.0, 5.0], 9.0) == [4.0, 1.0, 4.0]


@given(st.lists(st.floats(0, 9), min_size=2, max_size=40), st.floats(0, 20), st.floats(0.1, 9))
def test_the_closed_form_is_lindleys_recursion(work, start, blocks):
    for width in (1.0, 10.0):
        found = fluid.lindley(np.array([start]), np.array([work]), np.array([blocks]), width)[0]
        level = start
        for k, a in enumerate(work):
            if width > 1:
                level = max(0.0, level + a - blocks * width)
            else:
                level = max(0.0, level - blocks * width) + a
            np.testing.assert_allclose(found[k], level, atol=1e-9)


def test_quantiles_of_the_histogram_are_those_of_the_delays():
    rng = np.random.default_rng(0)
    delay = np.exp(rng.normal(2, 1, (1, 20000)))
    counts = fluid.histogram(delay, delay, np.ones_like(delay))[0]
    for q in (0.5, 0.99):
        assert abs(fluid.quantile(counts, q) / np.quantile(delay, q) - 1) < 0.05


def test_generated_traffic_is_like_the_recorded_it_was_fitted_to():
    for kind in traffic.FILES:
        entry = traffic.fits()[kind]
        made = calibration.statistics([traffic.generate(kind, 1200.0, k) for k in range(2)])
        assert abs(made["mean_mbps"] / entry["recorded"]["mean_mbps"] - 1) < 0.5
        assert abs(made["active"] / entry["recorded"]["active"] - 1) < 0.25


@pytest.mark.parametrize("kind", list(traffic.FILES))
def test_3gpp_traffic_is_ordered_and_inside(kind):
    trace = traffic.standard(kind, 120.0, 1)
    assert (np.diff(trace.times) >= 0).all() and trace.times.max() < trace.duration
    assert trace.sizes.min() > 0


@public
def test_the_table_gives_the_measured_rate():
    assert tables.bits(18, 14) == 4584


@public
def test_train_and_test_traces_share_nothing():
    train, test = traffic.recorded("train"), traffic.recorded("test")
    for kind in train:
        assert not {t.name for t in train[kind]} & {t.name for t in test[kind]}
        assert train[kind] and test[kind]


@public
def test_the_fits_are_what_the_script_finds():
    fitted = calibration.fit_traffic()
    for kind in traffic.FILES:
        assert fitted[kind]["transitions"] == traffic.fits()[kind]["transitions"]
