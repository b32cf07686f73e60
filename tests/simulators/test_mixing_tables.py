import json

import gymnasium as gym
import numpy as np
import pytest
import runs_tables

import allocgym  # noqa: F401
from allocgym.agents.core.agent import rollout
from allocgym.agents.data_mixing.heuristics import Natural
from allocgym.benchmarks.data_mixing.malformed import CASES, HARMLESS, written
from allocgym.envs.core.builder import build
from allocgym.envs.core.errors import AllocgymError, CorruptFileError
from allocgym.simulators.core import public_data
from allocgym.simulators.data_mixing import additive, ensemble, table, table_fit
from allocgym.simulators.data_mixing.additive import Choice
from allocgym.simulators.data_mixing.ensemble import phase_weights
from allocgym.simulators.data_mixing.table import Facts


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A fit of a known law and the file it is in."""
    folder = tmp_path_factory.mktemp("table")
    fit = table_fit.fit_table(runs_tables.read(folder), members=6)
    fit.write(folder / "fit.json")
    return fit, folder / "fit.json"


@pytest.mark.parametrize("name", CASES)
def test_a_malformed_table_is_told_in_one_sentence(name, tmp_path):
    with pytest.raises(AllocgymError, match=r"^(ratios|metrics|families): [^\n]+$"):
        table.read(*written(tmp_path, CASES[name]))


@pytest.mark.parametrize("name", HARMLESS)
def test_what_does_no_harm_is_read(name, tmp_path):
    plain = table.read(*written(tmp_path, lambda ratios, metrics: None))
    again = table.read(*written(tmp_path, HARMLESS[name]))
    order = [again.domains.index(d) for d in plain.domains]
    rows = [again.runs.index(r) for r in plain.runs]
    np.testing.assert_allclose(again.shares[rows][:, :, order], plain.shares)
    np.testing.assert_allclose(again.values[rows], plain.values)


@pytest.mark.parametrize(
    "facts, message",
    [
        ({"token_counts": {"web": 1e9}}, "token_counts: a number > 0 expected for 'code'"),
        ({"families": {"all": ["bqb"]}}, "Did you mean 'bpb'"),
        ({"families": {"all": "bpb"}}, "a list of metrics"),
        ({"tokens": {}}, "token_counts"),
        ({"phases": [1, 1]}, "phases: 1 lengths"),
        ([], "an object"),
    ],
)
def test_facts_about_something_else_are_refused(facts, message, tmp_path):
    (tmp_path / "tokens.json").write_text(json.dumps(facts))
    with pytest.raises(AllocgymError, match=message):
        paths = written(tmp_path, lambda ratios, metrics: None)
        table.read(*paths, Facts.read(tmp_path / "tokens.json"))


def test_phases_are_column_groups(tmp_path):
    runs = runs_tables.read(tmp_path, runs=12, phases=2)
    assert runs.shares.shape == (12, 2, 4) and runs.switching.all()
    assert runs.domains == runs_tables.DOMAINS
    ratios, metrics, _ = (tmp_path / f for f in ("ratios.csv", "metrics.csv", "tokens.json"))
    with pytest.raises(AllocgymError, match="sum to 2"):
        table.read(ratios, metrics)
    text = ratios.read_text().replace("web@2", "web@3")
    ratios.write_text(text)
    with pytest.raises(AllocgymError, match="every domain in every phase"):
        table.read(ratios, metrics, phases=True)


def test_a_known_law_is_recovered(fitted):
    fit, _ = fitted
    mixtures = np.random.default_rng(9).dirichlet(np.ones(4), 50)
    for law, found in zip(runs_tables.LAWS.values(), fit.members[0].laws, strict=True):
        np.testing.assert_allclose(found.predict(mixtures), law.predict(mixtures), atol=0.03)
    for weights in ([1, 0], [0, 1], [0.5, 0.5]):
        rank = fit.rank(np.array(weights))
        assert rank.r2 > 0.95 and rank.low > 0.9 and not rank.doubts
    assert fit.told()[0, 1] and fit.told()[1, 2]


def test_slopes_are_those_of_predictions(fitted):
    fit, _ = fitted
    x = np.array([[0.1, 0.4, 0.3, 0.2]])
    step = 1e-6
    for j in range(4):
        moved = x + step * (np.arange(4) == j)
        slope = (fit.predict(moved) - fit.predict(x)) / step
        np.testing.assert_allclose(fit.slopes(x)[:, :, 0, j], slope, rtol=1e-3)


def test_errors_of_runs_left_out_are_close_to_those_of_fits_without_them(tmp_path):
    runs = runs_tables.read(tmp_path, runs=30, noise=0.02)
    shares, values = runs.shares[:, 0], runs.values[:, 0]
    law = additive.fit(shares, values, Choice(0.1))
    fast = additive._Task(shares, values, 0.1).left_out(law)
    rows = np.arange(30)
    slow = [
        additive.fit(shares[rows != k], values[rows != k], Choice(0.1), law).predict(shares[k])
        - values[k]
        for k in rows
    ]
    assert np.corrcoef(fast, slow)[0, 1] > 0.95


def test_a_stretched_law_lies_as_far_from_its_centre():
    law = runs_tables.LAWS["coding"]
    x = np.full((1, 4), 0.25)
    np.testing.assert_allclose(
        law.stretched(0.5, 1.0).predict(x) - 1.0, 0.5 * (law.predict(x) - 1.0)
    )


def test_few_runs_of_many_domains_promise_nothing(tmp_path):
    domains = (*runs_tables.DOMAINS, *(f"other-{k}" for k in range(8)))
    fit = table_fit.fit_table(runs_tables.read(tmp_path, runs=10, domains=domains), members=2)
    for weights in np.eye(2):
        assert "10 runs cannot tell 12 domains apart" in fit.rank(weights).doubts
    with pytest.raises(AllocgymError, match="at least 10 runs"):
        table_fit.fit_table(runs_tables.read(tmp_path, runs=9), members=2)


def test_noise_promises_nothing(tmp_path):
    fit = table_fit.fit_table(runs_tables.read(tmp_path, runs=20, noise=50.0), members=2)
    assert any("rank agreement" in doubt for doubt in fit.rank(np.array([1.0, 0])).doubts)


@pytest.mark.parametrize("forgetting", [0.0, 2.0])
def test_order_is_told_by_runs_that_switch(forgetting, tmp_path):
    runs = runs_tables.read(tmp_path, runs=40, phases=2, forgetting=forgetting)
    fit = table_fit.fit_table(runs, members=5)
    assert fit.switching == 40 and fit.order_matters == bool(forgetting)
    assert fit.members[0].forgetting == pytest.approx(forgetting, abs=0.3)


def test_phases_count_by_length_where_nothing_is_forgotten():
    np.testing.assert_allclose(phase_weights(np.array([0.7, 0.3]), 0.0), [0.7, 0.3])
    early, late = phase_weights(np.array([0.5, 0.5]), 1.0)
    assert late / early == pytest.approx(np.e**0.5)


def test_a_fit_survives_its_file(fitted):
    fit, file = fitted
    again = ensemble.read(file)
    x = np.full((1, 4), 0.25)
    np.testing.assert_allclose(again.predict(x), fit.predict(x), rtol=1e-8)
    assert again.choices == pytest.approx(fit.choices) or len(again.choices) == 2
    assert again.domains == fit.domains and again.order_matters == fit.order_matters


@pytest.mark.parametrize(
    "change, message",
    [
        ({"schema": 99}, "schema 99"),
        ({"kind": "other"}, "is no fit"),
        ({"members": []}, "damaged"),
        ({"prior": [1.0]}, "damaged"),
        ({"measured": [[None, 1.0]]}, "damaged"),
        ({"members": [{"laws": [], "forgetting": 0.0}]}, "damaged"),
    ],
)
def test_a_damaged_fit_is_told(change, message, fitted, tmp_path):
    data = json.loads(fitted[1].read_text()) | change
    (tmp_path / "fit.json").write_text(json.dumps(data))
    with pytest.raises(CorruptFileError, match=message):
        ensemble.read(tmp_path / "fit.json")
    with pytest.raises(AllocgymError, match="no file"):
        ensemble.read(tmp_path / "none.json")


def test_an_environment_plays_the_fit(fitted):
    fit, file = fitted
    env = gym.make("allocgym:allocgym/DataMixing-v0", fit=str(file), n_max=6)
    env.reset(seed=0)
    done = False
    while not done:
        _, _, done, _, _ = env.step(np.zeros(6, np.float32))
    spec = env.unwrapped.backend.spec
    assert spec.claimants[:4] == fit.domains and spec.scenario == "table"


@pytest.mark.parametrize("forgetting", [0.0, 2.0])
def test_a_static_mixture_ends_where_the_fit_says(forgetting, tmp_path):
    runs = runs_tables.read(tmp_path, runs=40, phases=2, forgetting=forgetting)
    fit = table_fit.fit_table(runs, members=4)
    fit.write(tmp_path / "fit.json")
    twin = build("data-mixing", "twin", None, 20, fit=str(tmp_path / "fit.json"), budget=2**20)
    outcome = rollout(Natural(twin.problem), twin, np.arange(20))[-1]
    value = (outcome.instance.weight * outcome.heldout).sum(1)
    said = fit.predict(fit.prior[None])[1:].mean(1)
    np.testing.assert_allclose(value, said[np.abs(value[:, None] - said).argmin(1)], atol=1e-4)
    assert len(np.unique(value.round(5))) > 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"fit": "nowhere.json"}, "fit: no file"),
        ({"fit": 3}, "fit: str expected"),
        ({"family": "table"}, "fit: the file of a fit"),
    ],
)
def test_a_wrong_fit_is_told(arguments, message):
    with pytest.raises(AllocgymError, match=message):
        gym.make("allocgym:allocgym/DataMixing-v0", **arguments)


def test_a_fit_knows_no_learning_rates(fitted):
    with pytest.raises(AllocgymError, match="schedules"):
        build("data-mixing", fit=str(fitted[1]), schedules=("cosine",))


def test_public_tables_are_ranked():
    if not public_data.available("mixing/olmix"):
        pytest.skip(f"needs the public tables of Olmix: set {public_data.VARIABLE}")
    from allocgym.benchmarks.data_mixing import olmix

    runs = olmix.read("dclm")
    assert runs.shares.shape == (127, 1, 24) and runs.families == ("code", "math", "qa")
    foretold = table_fit.out_of_fold(runs, False)
    for real, told, least in zip(runs.values.T, foretold.T, (0.97, 0.96, 0.88), strict=True):
        rank = ensemble.rank_agreement(real, told, 24)
        assert rank.r2 > least and not rank.doubts
