"""What a table of runs has told: an ensemble of laws, and predictions by which it is judged.

The fit is a file (JSON): the law fitted to all runs, the same law fitted to resampled runs (a bootstrap
ensemble: agents train on its members, recommendations answer to their spread), and predictions of runs
that were left out. What order does to a run is one rate, at which what was learned early counts less
at the end; zero where the runs cannot tell it. `table_fit` makes it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core.errors import AllocgymError, CorruptFileError, shown, unknown
from allocgym.envs.core.journal import write_json
from allocgym.simulators.data_mixing.additive import AdditiveLaw, Choice
from allocgym.simulators.data_mixing.rank import Rank, rank_agreement

SCHEMA = 1
NUDGE = 0.05
"""Share given to a domain where what a domain does is told apart."""


@dataclasses.dataclass(frozen=True)
class Member:
    """One fit: a law for each family, and how much less early tokens count.

    Attributes:
        laws: one for each family.
        forgetting: rate, per run: tokens a fraction t before the end count ``exp(-forgetting t)``.
    """

    laws: tuple[AdditiveLaw, ...]
    forgetting: float = 0.0

    def exposure(self, shares: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Static mixtures ``(..., n)`` that end where schedules ``(..., phases, n)`` do."""
        return np.asarray(phase_weights(lengths, self.forgetting) @ shares)

    def predict(self, shares: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Values of families at the end of schedules ``(..., phases, n)``, ``(..., families)``."""
        mixture = self.exposure(shares, lengths)
        return np.stack([law.predict(mixture) for law in self.laws], -1)


def phase_weights(lengths: np.ndarray, forgetting: float) -> np.ndarray:
    """What each phase counts at the end of a run, summing to 1; by length where nothing is forgotten."""
    after = 1 - np.cumsum(lengths)
    kept = np.exp(-forgetting * np.maximum(after, 0))
    weight = kept * (lengths if abs(forgetting) < 1e-6 else -np.expm1(-forgetting * lengths))
    return np.asarray(weight / weight.sum())


@dataclasses.dataclass(frozen=True)
class TableFit:
    """What is known of a table of runs. See `Table` for domains, families, prior, tokens and lengths.

    Attributes:
        members: the fit to all runs, then those to resampled runs.
        largest: ``(n,)`` largest share that any run gave to each domain.
        trained: ``(n,)`` runs that had any of each domain.
        best: ``(families,)`` lowest value of any run.
        measured, foretold: ``(runs, families)`` values of runs, and predictions by fits without them.
        switching: runs that switch their mixture.
        choices: how strongly each family was regularised.
    """

    domains: tuple[str, ...]
    families: tuple[str, ...]
    prior: np.ndarray
    tokens: np.ndarray | None
    lengths: np.ndarray
    members: tuple[Member, ...]
    largest: np.ndarray
    trained: np.ndarray
    best: np.ndarray
    measured: np.ndarray
    foretold: np.ndarray
    switching: int
    choices: tuple[Choice, ...]

    @property
    def order_matters(self) -> bool:
        """Whether the runs tell that early tokens count more, or less, than late ones."""
        return any(member.forgetting for member in self.members)

    def predict(self, shares: np.ndarray) -> np.ndarray:
        """Values at the end of a schedule ``(phases, n)``, by member ``(members, families)``.

        Phases are of equal length, unless there are as many as the runs have.
        """
        lengths = self.lengths_of(len(shares))
        return np.stack([member.predict(shares, lengths) for member in self.members])

    def slopes(self, shares: np.ndarray) -> np.ndarray:
        """Derivatives of `predict`, ``(members, families, phases, n)``."""
        lengths = self.lengths_of(len(shares))
        out = np.empty((len(self.members), len(self.families), *shares.shape))
        for k, member in enumerate(self.members):
            weights = phase_weights(lengths, member.forgetting)
            for f, law in enumerate(member.laws):
                out[k, f] = weights[:, None] * law.slope(weights @ shares)
        return out

    def lengths_of(self, phases: int) -> np.ndarray:
        """Fraction of the run in each of so many phases."""
        return self.lengths if phases == len(self.lengths) else np.full(phases, 1 / phases)

    def weights(self, given: Mapping[str, float] | None) -> np.ndarray:
        """Weights of families that sum to 1, ``(families,)``; equal where None is given.

        Raises:
            AllocgymError: no family of that name, a negative weight, or none above 0.
        """
        if given is None:
            return np.full(len(self.families), 1 / len(self.families))
        for name in given:
            if name not in self.families:
                raise unknown("weights", name, self.families)
        weights = np.array([float(given.get(name, 0.0)) for name in self.families])
        if not np.isfinite(weights).all() or (weights < 0).any() or weights.sum() <= 0:
            raise AllocgymError(f"weights: numbers >= 0, not all 0, expected, given {dict(given)}")
        return np.asarray(weights / weights.sum())

    def rank(self, weights: np.ndarray) -> Rank:
        """How well a weighted mean of families is ranked on runs that were left out."""
        return rank_agreement(self.measured @ weights, self.foretold @ weights, len(self.domains))

    def told(self) -> np.ndarray:
        """Which effects have a sure sign, ``(families, n)`` bool.

        The effect of moving a twentieth of the tokens from the prior to a domain; at most one member
        in twenty may differ in its sign.
        """
        signs = []
        for member in self.members:
            at = self.prior + NUDGE * (np.eye(len(self.prior)) - self.prior)
            moved = [law.predict(at) - law.predict(self.prior) for law in member.laws]
            signs.append(np.sign(moved))
        agree: np.ndarray = np.abs(np.mean(signs, 0)) >= 0.9 - 1e-9
        return agree

    def shows(self) -> np.ndarray:
        """Family whose value a domain's row shows in the environment, ``(n,)`` indices.

        A domain named as a family shows that; any other the one that depends on it most, beside how
        much that family depends on all. Every family is shown somewhere.
        """
        from scipy.optimize import linear_sum_assignment

        laws = self.members[0].laws
        slopes = np.abs([law.slope(self.prior) * self.prior for law in laws])
        part = slopes / np.maximum(slopes.sum(1, keepdims=True), 1e-300)
        part += np.array([[d == f for d in self.domains] for f in self.families]) * 2.0
        out = part.argmax(0)
        family, domain = linear_sum_assignment(-part)
        out[domain] = family
        return out

    def write(self, path: Path) -> None:
        """Write the file."""
        plain = {
            f.name: _plain(getattr(self, f.name))
            for f in dataclasses.fields(self)
            if f.name != "members"
        }
        members = _plain(self.members)
        head = {"schema": SCHEMA, "kind": "table fit", "problem": "data-mixing"}
        write_json(Path(path), {**head, **plain, "members": members})


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [_plain(v) for v in value] if value.ndim else float(f"{value:.10g}")
    if isinstance(value, (float, np.floating)):
        return float(f"{value:.10g}")
    if isinstance(value, (np.integer,)):
        return int(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain(dataclasses.asdict(value))
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def read(path: str | Path) -> TableFit:
    """Read a fit's file.

    Raises:
        AllocgymError: no such file.
        CorruptFileError: not a fit, of another schema, or damaged.
    """
    path = Path(path)
    try:
        changed = path.stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise AllocgymError(f"fit: no file {shown(str(path))}") from error
    return _read(str(path.resolve()), changed)


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> TableFit:
    try:
        data = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise CorruptFileError(f"fit: {path} cannot be read as JSON ({error})") from error
    if not isinstance(data, dict) or data.get("kind") != "table fit":
        raise CorruptFileError(f"fit: {path} is no fit of `allocgym calibrate data-mixing`")
    if data.get("schema") != SCHEMA:
        raise CorruptFileError(
            f"fit: {path} has schema {data.get('schema')!r}, {SCHEMA} expected; calibrate again"
        )
    try:
        return _checked(_built(data))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise CorruptFileError(f"fit: {path} is damaged ({error})") from error


def _built(data: dict[str, Any]) -> TableFit:
    members = tuple(
        Member(
            tuple(
                AdditiveLaw(
                    float(law["floor"]),
                    np.array(law["log_gain"], float),
                    np.array(law["exponent"], float),
                    float(law["offset"]),
                )
                for law in member["laws"]
            ),
            float(member["forgetting"]),
        )
        for member in data["members"]
    )
    arrays = ("prior", "lengths", "largest", "trained", "best", "measured", "foretold")
    tokens = data["tokens"]
    return TableFit(
        domains=tuple(map(str, data["domains"])),
        families=tuple(map(str, data["families"])),
        tokens=None if tokens is None else np.array(tokens, float),
        members=members,
        switching=int(data["switching"]),
        choices=tuple(Choice(**one) for one in data["choices"]),
        **{name: np.array(data[name], float) for name in arrays},
    )


def _checked(fit: TableFit) -> TableFit:
    n, families, runs = len(fit.domains), len(fit.families), len(fit.measured)
    shapes = {
        "prior": (n,),
        "largest": (n,),
        "trained": (n,),
        "best": (families,),
        "measured": (runs, families),
        "foretold": (runs, families),
        "lengths": fit.lengths.shape[:1],
    }
    for name, shape in shapes.items():
        if getattr(fit, name).shape != shape or not np.isfinite(getattr(fit, name)).all():
            raise ValueError(f"{name}: finite numbers of shape {shape} expected")
    if fit.tokens is not None and fit.tokens.shape != (n,):
        raise ValueError(f"tokens: {n} numbers expected")
    if not fit.members or n < 2 or not families:
        raise ValueError("members, domains and families expected")
    for member in fit.members:
        for law in member.laws:
            good = np.isfinite(law.log_gain).all() and (law.exponent > 0).all() and law.offset > 0
            if law.log_gain.shape != (n,) or law.exponent.shape != (n,) or not good:
                raise ValueError(f"members: laws of {n} domains expected")
        if len(member.laws) != families:
            raise ValueError(f"members: {families} laws each expected")
    return fit
