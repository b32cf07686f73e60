"""Fits the law to a table of runs: out of fold for its judgement, whole for its use, resampled for
its spread. What it makes is an `ensemble.TableFit`.
"""  # noqa: D205

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import minimize_scalar

from allocgym.envs.core.errors import AllocgymError
from allocgym.simulators.data_mixing import additive
from allocgym.simulators.data_mixing.additive import Choice
from allocgym.simulators.data_mixing.ensemble import Member, TableFit, phase_weights
from allocgym.simulators.data_mixing.table import Table

FOLDS = 5
MEMBERS = 20
"""Fits to resampled runs, beside the one to all runs."""
SWITCHING = 8
"""Runs that switch their mixture, at least, for order to be fitted."""
FASTEST = 4.0
"""Largest rate of forgetting in a run, either way: what is learned first counts exp(-4) times less."""


def fit_table(
    table: Table,
    members: int = MEMBERS,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda done, score: None,
) -> TableFit:
    """Fit a table: out of fold for its judgement, whole for its use, resampled for its spread.

    Args:
        table: the runs.
        members: fits to resampled runs.
        seed: of folds and resamples.
        progress: told (fits done of ``members + FOLDS``, 0).

    Raises:
        AllocgymError: fewer than ten runs.
    """
    count = len(table.runs)
    if count < 2 * FOLDS:
        raise AllocgymError(f"ratios: at least {2 * FOLDS} runs expected, given {count}")
    foretold, order = out_of_fold(table, False, seed, progress), False
    if int(table.switching.sum()) >= SWITCHING:
        other = out_of_fold(table, True, seed)
        order = _surely_better(table.values, other, foretold)
        foretold = other if order else foretold
    central, chosen = _fitted(table, order)
    rng = np.random.default_rng(seed)
    found = [central]
    for k in range(members):
        rows = rng.integers(0, count, count)
        found.append(fit_member(table.take(rows), chosen, order, central))
        progress(FOLDS + k + 1, 0.0)
    given = table.shares.max(1)
    return TableFit(
        domains=table.domains,
        families=table.families,
        prior=table.prior,
        tokens=table.tokens,
        lengths=table.lengths,
        members=tuple(found),
        largest=given.max(0),
        trained=(given > 0).sum(0),
        best=table.values.min(0),
        measured=table.values,
        foretold=foretold,
        switching=int(table.switching.sum()),
        choices=chosen,
    )


def _surely_better(values: np.ndarray, one: np.ndarray, other: np.ndarray) -> bool:
    """Whether one prediction's errors are below another's by two standard errors, over runs."""
    unit = np.maximum(values.std(0), 1e-9)
    ahead = ((((other - values) / unit) ** 2) - ((one - values) / unit) ** 2).sum(1)
    return bool(ahead.mean() > 2 * ahead.std(ddof=1) / np.sqrt(len(ahead)))


def out_of_fold(
    table: Table,
    order: bool,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda done, score: None,
) -> np.ndarray:
    """Predict every run by a fit that has not seen it, ``(runs, families)``.

    The strength of regularisation is chosen within the runs that were fitted.
    """
    foretold = np.empty_like(table.values)
    for k, held in enumerate(additive.fold_of(len(table.runs), FOLDS, seed)):
        rest = table.take(np.flatnonzero(~held))
        member, _ = _fitted(rest, order)
        foretold[held] = member.predict(table.shares[held], table.lengths)
        progress(k + 1, 0.0)
    return foretold


def _fitted(table: Table, order: bool) -> tuple[Member, tuple[Choice, ...]]:
    """A fit and its regularisation, chosen at the rate of forgetting that the runs show."""
    chosen = choices(table)
    member = fit_member(table, chosen, order)
    if not order:
        return member, chosen
    chosen = choices(table, member.forgetting)
    return fit_member(table, chosen, order), chosen


def fit_member(
    table: Table, chosen: tuple[Choice, ...], order: bool, start: Member | None = None
) -> Member:
    """Fit the laws of all families, and the rate of forgetting where ``order`` is asked for.

    Args:
        table: the runs.
        chosen: strength of regularisation, for each family.
        order: False takes the order of phases to make no difference.
        start: begin at another fit.
    """
    unit = np.maximum(table.values.std(0), 1e-9)

    def at(forgetting: float) -> Member:
        mixture = phase_weights(table.lengths, forgetting) @ table.shares
        begins = start.laws if start is not None else (None,) * len(table.families)
        laws = [
            additive.fit(mixture, values, choice, begin)
            for values, choice, begin in zip(table.values.T, chosen, begins, strict=True)
        ]
        return Member(tuple(laws), forgetting)

    def error(forgetting: float) -> float:
        return float(np.sum(((at(forgetting).predict(*runs) - table.values) / unit) ** 2))

    if not order:
        return at(0.0)
    runs = table.shares, table.lengths
    found = minimize_scalar(
        error, bounds=(-FASTEST, FASTEST), method="bounded", options={"xatol": 0.02}
    )
    return at(float(found.x))


def choices(table: Table, forgetting: float = 0.0) -> tuple[Choice, ...]:
    """How strongly to regularise, for each family."""
    mixture = phase_weights(table.lengths, forgetting) @ table.shares
    return tuple(additive.choose(mixture, values) for values in table.values.T)
