"""Tables of runs: which mixture each was trained on, and what was measured at its end.

The format is the two files of Olmix (github.com/allenai/olmix): ``ratios.csv`` and ``metrics.csv``, one
row a run, joined on a column ``run``. Columns ``name``, ``index`` and a column without a name are
ignored; every other column of the first is a domain, of the second a metric (lower is better, such as
bits per byte). A run in several phases has a column ``domain@1``, ``domain@2``, ... for each domain and
phase. ``docs/bring_your_runs.md`` has an example.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from allocgym.envs.core.errors import AllocgymError, unknown

IGNORED = ("name", "index")
"""Columns beside ``run`` that describe a run."""
MOST_DOMAINS = 128
MOST_FAMILIES = 16
TOLERANCE = 1e-3
"""Shares of a run sum to 1 within this; tables are rounded."""
_PHASED = re.compile(r"(.+)@([1-9]\d?)")


@dataclasses.dataclass(frozen=True)
class Table:
    """Runs of a proxy model, each on its own mixture.

    Attributes:
        runs: their ids.
        domains: names, ``n`` of them.
        families: names of what was measured: means over metrics.
        shares: ``(runs, phases, n)`` of training tokens, each phase of a run summing to 1.
        lengths: ``(phases,)`` fraction of a run's tokens in each phase, summing to 1.
        values: ``(runs, families)`` at the end of the run; lower is better.
        prior: ``(n,)`` natural shares, summing to 1.
        tokens: ``(n,)`` tokens there are of each domain, or None where not told.
    """

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    families: tuple[str, ...]
    shares: np.ndarray
    lengths: np.ndarray
    values: np.ndarray
    prior: np.ndarray
    tokens: np.ndarray | None = None

    @property
    def switching(self) -> np.ndarray:
        """``(runs,)`` bool, runs whose mixture changes between phases."""
        changes: np.ndarray = np.ptp(self.shares, axis=1).max(1) > TOLERANCE
        return changes

    def take(self, rows: np.ndarray) -> Table:
        """Some of the runs; the same run may be taken several times."""
        runs = tuple(np.array(self.runs, object)[rows])
        return dataclasses.replace(
            self, runs=runs, shares=self.shares[rows], values=self.values[rows]
        )


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known beside the runs, from ``tokens.json``.

    Attributes:
        token_counts: tokens there are, by domain.
        relative_sizes: natural share by domain (default: in proportion to the tokens, else equal).
        families: metrics by family (default: each metric is one; where there are more than 16, their
            mean).
        phases: relative length of each phase (default: equal).
    """

    token_counts: Mapping[str, float] | None = None
    relative_sizes: Mapping[str, float] | None = None
    families: Mapping[str, Sequence[str]] | None = None
    phases: Sequence[float] | None = None

    @classmethod
    def read(cls, path: Path) -> Facts:
        """Read a file of the four fields.

        Raises:
            AllocgymError: no such file, no JSON, or a field of another name or kind.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise AllocgymError(f"tokens: {path} cannot be read as JSON ({error})") from error
        fields = [f.name for f in dataclasses.fields(cls)]
        if not isinstance(data, dict):
            raise AllocgymError(f"tokens: an object with some of {', '.join(fields)} expected")
        for name, value in data.items():
            if name not in fields:
                raise unknown("tokens", name, fields)
            kind = list if name == "phases" else dict
            if value is not None and not isinstance(value, kind):
                raise AllocgymError(f"tokens: {name}: a {kind.__name__} expected, given {value!r}")
        return cls(**data)


def read(ratios: Path, metrics: Path, facts: Facts | None = None, phases: bool = False) -> Table:
    """Read the two tables. A byte order mark, the order of rows and that of columns do not matter.

    Args:
        ratios: mixture of every run.
        metrics: what was measured at its end.
        facts: what is known beside them.
        phases: whether columns of the first are ``domain@phase``.

    Raises:
        AllocgymError: a file that cannot be read, an id twice or in one of the two only, a number that
            is none, shares that do not sum to 1, or facts about something else.
    """
    facts = facts or Facts()
    mixtures, measured = _numbers(ratios, "ratios"), _numbers(metrics, "metrics")
    for one, other, what in ((mixtures, measured, "metrics"), (measured, mixtures, "ratios")):
        lacking = one.index.difference(other.index)
        if len(lacking):
            raise AllocgymError(f"{what}: no row for {_some(lacking)}, which the other table has")
    measured = measured.loc[mixtures.index]
    domains, shares = _phases(mixtures, phases)
    families, values = _families(measured, facts.families)
    return checked(tuple(mixtures.index), domains, families, (shares, values), facts)


def metrics(path: Path) -> list[str]:
    """Names of what a table of metrics measures."""
    return list(_numbers(path, "metrics"))


def checked(
    runs: Sequence[str],
    domains: Sequence[str],
    families: Sequence[str],
    arrays: tuple[np.ndarray, np.ndarray],
    facts: Facts,
) -> Table:
    """Build a table of arrays (shares, values) that are numbers already; see `Table`.

    Raises:
        AllocgymError: shares that do not sum to 1, too many domains or families, facts about others.
    """
    shares, values = arrays
    if not 2 <= len(domains) <= MOST_DOMAINS:
        raise AllocgymError(f"ratios: 2 to {MOST_DOMAINS} domains expected, given {len(domains)}")
    if not 1 <= len(families) <= min(MOST_FAMILIES, len(domains)):
        raise AllocgymError(
            f"families: 1 to {min(MOST_FAMILIES, len(domains))} expected (at most as many as "
            f"domains), given {len(families)}"
        )
    if (shares < 0).any():
        run = np.argwhere(shares < 0)[0, 0]
        raise AllocgymError(f"ratios: shares >= 0 expected, run {runs[run]!r} has a negative one")
    sums = shares.sum(2)
    off = np.abs(sums - 1) > TOLERANCE
    if off.any():
        run, phase = np.argwhere(off)[0]
        raise AllocgymError(
            f"ratios: shares of a run that sum to 1 expected, those of {runs[run]!r} sum to "
            f"{sums[run, phase]:.4g}" + (f" in phase {phase + 1}" if shares.shape[1] > 1 else "")
        )
    tokens = _by_domain("token_counts", facts.token_counts, domains)
    prior = _by_domain("relative_sizes", facts.relative_sizes, domains)
    if prior is None:
        prior = np.ones(len(domains)) if tokens is None else tokens
    count = shares.shape[1]
    lengths = np.array(facts.phases if facts.phases is not None else [1.0] * count, float)
    if lengths.shape != (count,) or not (lengths > 0).all():
        raise AllocgymError(f"phases: {count} lengths > 0 expected, given {facts.phases}")
    return Table(
        runs=tuple(runs),
        domains=tuple(domains),
        families=tuple(families),
        shares=shares / sums[:, :, None],
        lengths=lengths / lengths.sum(),
        values=values,
        prior=prior / prior.sum(),
        tokens=tokens,
    )


def _numbers(path: Path, what: str) -> pd.DataFrame:
    """A table of finite numbers with ids as its index."""
    try:
        # As text: an id that looks like a number stays what it is in both tables.
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise AllocgymError(f"{what}: {path} cannot be read as a table ({error})") from error
    if "run" not in frame:
        raise AllocgymError(
            f"{what}: a column 'run' with the id of each run expected, {path} has none"
        )
    if frame.empty:
        raise AllocgymError(f"{what}: at least one run expected, {path} has no rows")
    ids = frame["run"].str.strip()
    if ids.duplicated().any():
        raise AllocgymError(f"{what}: run {ids[ids.duplicated()].iloc[0]!r} stands there twice")
    frame = frame.set_index(ids).drop(columns="run")
    named = [c for c in frame if c not in IGNORED and not str(c).startswith("Unnamed:")]
    frame = frame[named].rename(columns=lambda c: str(c).strip())
    twice = frame.columns[frame.columns.str.fullmatch(r".*\.1") & _doubled(frame.columns)]
    if len(twice):
        raise AllocgymError(f"{what}: column {str(twice[0])[:-2]!r} stands there twice")
    numbers = frame.apply(pd.to_numeric, errors="coerce").astype(float)
    bad = np.argwhere(~np.isfinite(numbers.to_numpy()))
    if len(bad):
        row, column = bad[0]
        raise AllocgymError(
            f"{what}: a number expected for {frame.columns[column]!r} of run {frame.index[row]!r}, "
            f"given {frame.iat[row, column]!r}"
        )
    return numbers


def _doubled(columns: pd.Index) -> np.ndarray:
    """Columns that pandas has renamed, ``a`` to ``a.1``, because the file has two of them."""
    return np.array([str(c)[:-2] in columns for c in columns], bool)


def _phases(mixtures: pd.DataFrame, phases: bool) -> tuple[list[str], np.ndarray]:
    """Names of domains, and shares ``(runs, phases, n)``."""
    if not phases:
        return list(mixtures), mixtures.to_numpy()[:, None]
    found = {c: _PHASED.fullmatch(c) for c in mixtures}
    plain = [c for c, match in found.items() if match is None]
    if plain:
        raise AllocgymError(f"phases: columns domain@1, domain@2, ... expected, given {plain[0]!r}")
    parts = {c: match.groups() for c, match in found.items() if match is not None}
    domains = list(dict.fromkeys(name for name, _ in parts.values()))
    count = max(int(number) for _, number in parts.values())
    wanted = [f"{d}@{k + 1}" for k in range(count) for d in domains]
    lacking = [c for c in wanted if c not in mixtures]
    if lacking:
        raise AllocgymError(f"phases: every domain in every phase expected, no {lacking[0]!r}")
    return domains, mixtures[wanted].to_numpy().reshape(len(mixtures), count, len(domains))


def _families(
    measured: pd.DataFrame, families: Mapping[str, Sequence[str]] | None
) -> tuple[list[str], np.ndarray]:
    """Names of families, and their means ``(runs, families)``."""
    if families is None:
        each = {str(c): [str(c)] for c in measured}
        families = each if len(each) <= MOST_FAMILIES else {"all metrics": list(each)}
    for name, members in families.items():
        if isinstance(members, str) or not members:
            raise AllocgymError(f"families: a list of metrics expected for {name!r}")
        for metric in members:
            if metric not in measured:
                raise unknown(f"families: {name}", metric, map(str, measured.columns))
    means = [measured[list(members)].mean(axis=1) for members in families.values()]
    return list(families), np.stack(means, 1) if means else np.empty((len(measured), 0))


def _by_domain(
    what: str, given: Mapping[str, Any] | None, domains: Sequence[str]
) -> np.ndarray | None:
    """Numbers of the table's domains, ``(n,)``; those of others do not matter."""
    if given is None:
        return None
    for name in domains:
        value = given.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < np.inf:
            raise AllocgymError(f"{what}: a number > 0 expected for {name!r}, given {value!r}")
    return np.array([float(given[name]) for name in domains])


def _some(names: Sequence[Any]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(repr(n) for n in list(names)[:3]) + more
