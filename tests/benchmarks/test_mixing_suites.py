import pytest

pytest.importorskip("torch")

from allocgym.benchmarks.data_mixing import recipes
from allocgym.benchmarks.data_mixing.calibrate import SETTINGS
from allocgym.benchmarks.data_mixing.real import BASES, CASES

BY_NAME = {case.name: case for case in CASES}


def test_a_case_weighs_its_target_and_shares_the_rest_among_the_sources():
    case = BY_NAME["logs+sorting -> markup, weight .7"]
    assert case.score([1.0, 2.0, 4.0], ["logs", "sorting", "markup"]) == pytest.approx(
        0.15 * 1 + 0.15 * 2 + 0.7 * 4
    )
    scratch = BY_NAME["scratch: logs, markup, roman, sorting"]
    assert scratch.score([1.0, 2.0, 3.0, 6.0], scratch.setting["domains"]) == pytest.approx(3.0)


def test_runs_that_cannot_differ_are_one_cell():
    case = BY_NAME["markup+roman -> logs"]
    assert case.cell("uniform", 1) != case.cell("uniform", 1 + BASES)
    blind, seeing = case.cell("uniform", 1), case.cell("weights", 1)
    assert "weights" not in blind["setting"] and "weights" in seeing["setting"]
    assert blind["setting"]["base_seed"] == 1


def test_recipes_are_chosen_on_fitted_domains_and_judged_on_others():
    fitted = {d for setting in SETTINGS.values() for d in setting["domains"]}
    chosen = {d for case in recipes.CASES for d in case.setting["domains"]}
    judged = {d for case in CASES for d in case.setting.get("domains", ())}
    assert chosen <= fitted and not judged & fitted
