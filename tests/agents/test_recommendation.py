import numpy as np
import pytest
import runs_tables

from allocgym.agents.data_mixing import recommendation
from allocgym.agents.data_mixing.recommendation import Target
from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.data_mixing import table_fit

HALF = np.array([0.5, 0.5])


@pytest.fixture(scope="module")
def fit(tmp_path_factory):
    runs = runs_tables.read(tmp_path_factory.mktemp("table"))
    return table_fit.fit_table(runs, members=6)


@pytest.fixture(scope="module")
def ordered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases")
    runs = runs_tables.read(folder, runs=40, phases=2, forgetting=2.0)
    return table_fit.fit_table(runs, members=5)


def test_a_mixture_sums_to_1_and_gains(fit):
    found = recommendation.recommend(fit, Target(HALF, kl_weight=0.0))
    assert found.shares.sum() == pytest.approx(1, abs=1e-6) and (found.shares >= 0).all()
    assert 0 < found.low <= found.gain <= found.high
    assert (found.shares[0] <= fit.largest + 1e-9).all()


def test_a_mixture_is_near_the_optimum_of_the_known_law(fit):
    laws = list(runs_tables.LAWS.values())
    many = np.random.default_rng(0).dirichlet(np.ones(4), 20000)
    best = np.mean([law.predict(many) for law in laws], 0).min()
    found = recommendation.recommend(fit, Target(HALF, kl_weight=0.0, pessimism=0.0))
    real = np.mean([law.predict(found.shares[0]) for law in laws])
    assert real < best + 0.01


@pytest.mark.parametrize("run_tokens", [2e9, 6e9])
def test_caps_are_kept(fit, run_tokens):
    found = recommendation.recommend(
        fit, Target(HALF, kl_weight=0.0, run_tokens=run_tokens, epochs=1.0)
    )
    used = found.shares[0] * run_tokens
    assert (used <= fit.tokens * (1 + 1e-6)).all()
    assert found.shares.sum() == pytest.approx(1, abs=1e-6)


def test_more_tokens_than_there_are_is_told(fit):
    with pytest.raises(AllocgymError, match="may supply"):
        recommendation.recommend(fit, Target(HALF, run_tokens=1e12, epochs=1.0))


def test_a_higher_price_of_distance_stays_nearer_to_the_prior(fit):
    prices = (0.0, 0.02, 0.1, 0.5, 10.0)
    found = [recommendation.recommend(fit, Target(HALF, kl_weight=k)) for k in prices]
    far, gain = [f.distance for f in found], [f.gain for f in found]
    assert (np.diff(far) <= 1e-4).all() and (np.diff(gain) <= 1e-4).all()
    assert far[-1] < 1e-3


def test_pessimism_raises_the_lower_end(fit):
    sure = recommendation.recommend(fit, Target(HALF, kl_weight=0.0, pessimism=3.0))
    bold = recommendation.recommend(fit, Target(HALF, kl_weight=0.0, pessimism=0.0))
    assert bold.gain >= sure.gain - 1e-6
    gains = [
        (fit.predict(fit.prior[None]) - fit.predict(plan.shares)) @ HALF for plan in (sure, bold)
    ]
    lower = [g.mean() - 3 * g.std() for g in gains]
    assert lower[0] >= lower[1] - 1e-6


def test_a_schedule_keeps_scarce_data_for_where_it_counts(ordered):
    target = Target(HALF, kl_weight=0.0, run_tokens=8e9, epochs=1.0)
    static = recommendation.recommend(ordered, target)
    schedule = recommendation.recommend(ordered, target, 2)
    np.testing.assert_allclose(schedule.shares.sum(1), 1, atol=1e-6)
    used = ordered.lengths @ schedule.shares * 8e9
    assert (used <= ordered.tokens * (1 + 1e-4)).all()
    assert schedule.gain > static.gain
    assert schedule.shares[1, 1] > schedule.shares[0, 1]  # code: scarce, and counts most when late


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"kl_weight": -1.0}, "kl_weight: a number >= 0"),
        ({"epochs": 0.0}, "epochs: a number > 0"),
        ({"pessimism": np.nan}, "pessimism"),
        ({"run_tokens": 0.0}, "run_tokens"),
    ],
)
def test_a_target_out_of_range_is_told(changes, message):
    with pytest.raises(AllocgymError, match=message):
        Target(HALF, **changes)


@pytest.mark.parametrize("weights", [{"codng": 1.0}, {"coding": -1.0}, {"coding": 0.0}])
def test_wrong_weights_are_told(fit, weights):
    with pytest.raises(AllocgymError, match="weights"):
        fit.weights(weights)
