"""What is told is looked at before it is written down or handed to an agent."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allocgym.envs.core.contracts import Outcome, Problem, Spec
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.record import Record

# Kinds of the fields that every outcome has.
KINDS = {"spent": "iu", "seconds": "f", "ready": "b", "valid": "b", "failure": "iu", "done": "b"}


def check(
    outcome: Any, problem: Problem, spec: Spec, earlier: Outcome | None, decision: Any, period: int
) -> None:
    """Refuse an outcome that cannot be the answer to a decision.

    Args:
        outcome: as told.
        problem: says what type is expected.
        spec: of the run.
        earlier: the outcome before, whose shapes and dtypes are the rule; None for the first.
        decision: what was decided, None for the first.
        period: decisions carried out, this one included.

    Raises:
        AllocgymError: wrong type, shape, dtype, batch, units, period, or numbers that are negative or
            not finite where the outcome says that they can be trusted.
    """
    if not isinstance(outcome, problem.outcome_type):
        raise AllocgymError(
            f"outcome: {problem.outcome_type.__name__} expected, given {type(outcome).__name__}"
        )
    _same_form(outcome, earlier, "")
    for name, kinds in KINDS.items():
        if getattr(outcome, name).dtype.kind not in kinds:
            raise AllocgymError(f"{name}: dtype {getattr(outcome, name).dtype} cannot be right")
    if outcome.ready.shape != (1, spec.n_max):
        raise AllocgymError(f"ready: shape {(1, spec.n_max)} expected, given {outcome.ready.shape}")
    if earlier is not None and earlier.done.all():
        raise AllocgymError("outcome: the run is over, given one more")
    for name in ("spent", "seconds", "failure"):
        value = getattr(outcome, name)[0]
        if not (np.isfinite(value) and value >= 0):
            raise AllocgymError(f"{name}: a finite number >= 0 expected, given {value}")
    _answers(outcome, problem, decision, period)
    if outcome.valid.all():
        field = untrusted(outcome)
        if field is not None:
            raise AllocgymError(
                f"{field}: finite numbers expected, given {_shown(getattr(outcome, field))}; an outcome "
                f"that was not measured says so with valid = False"
            )


def untrusted(outcome: Outcome) -> str | None:
    """Name a field that holds NaN or infinity in a row that reports now, or None.

    Records inside the outcome describe the instance; there an infinity means that there is no limit.
    """
    for field in dataclasses.fields(outcome):
        value = getattr(outcome, field.name)
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f":
            continue
        known = np.isfinite(value)
        if value.shape[:2] == outcome.ready.shape:
            known = known[outcome.ready]
        if not known.all():
            return field.name
    return None


def repaired(outcome: Outcome, earlier: Outcome | None) -> Outcome:
    """Return what agents are told of an outcome that is not valid: gaps filled by what was last known.

    An agent that averages what it hears would otherwise carry one NaN along for the rest of the run.
    """
    if earlier is None or outcome.valid.all():
        return outcome
    filled = {}
    for field in dataclasses.fields(outcome):
        value = getattr(outcome, field.name)
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            filled[field.name] = np.where(np.isfinite(value), value, getattr(earlier, field.name))
    return dataclasses.replace(outcome, **filled)


def check_memory(problem: Problem, before: Any, after: Any) -> None:
    """Refuse an outcome that a problem cannot make sense of, such as a loss of 0 bits.

    Raises:
        AllocgymError: what the problem remembers, or would show an agent, is no longer finite.
    """
    if before is None:
        shown = problem.encode(after)
        for name, value in shown.items() if isinstance(shown, dict) else [("numbers", shown)]:
            if not np.isfinite(value).all():
                raise AllocgymError(f"outcome: its observation has no finite {name!r}")
        return
    for field in dataclasses.fields(after):
        old, new = getattr(before, field.name), getattr(after, field.name)
        if isinstance(new, np.ndarray) and new.dtype.kind == "f" and new.shape == old.shape:
            if (np.isfinite(old) & ~np.isfinite(new)).any():
                raise AllocgymError(
                    f"outcome: with it the memory's {field.name!r} is {_shown(new)}; check the "
                    f"measurements' range and unit"
                )


def _same_form(record: Record, earlier: Record | None, inside: str) -> None:
    """Compare arrays with those told before: present, of one environment, of the same form."""
    kinds = record.nested()
    for field in dataclasses.fields(record):
        name = inside + field.name
        value = getattr(record, field.name)
        model = None if earlier is None else getattr(earlier, field.name)
        kind = kinds.get(field.name)
        if kind is not None:
            if not isinstance(value, kind):
                raise AllocgymError(
                    f"{name}: {kind.__name__} expected, given {type(value).__name__}"
                )
            _same_form(value, model, f"{name}.")
            continue
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
            given = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise AllocgymError(f"{name}: an array of numbers expected, given {given}")
        if value.ndim == 0 or len(value) != 1:
            raise AllocgymError(
                f"{name}: one environment expected, so shape (1, ...); given {value.shape}"
            )
        if model is not None and (value.shape, value.dtype) != (model.shape, model.dtype):
            raise AllocgymError(
                f"{name}: {model.dtype} of shape {model.shape} expected as before, given "
                f"{value.dtype} of shape {value.shape}"
            )
        if kind is None and inside and value.dtype.kind == "f" and np.isnan(value).any():
            raise AllocgymError(f"{name}: numbers expected, given NaN")


def _answers(outcome: Outcome, problem: Problem, decision: Any, period: int) -> None:
    told = getattr(outcome, "period", None)
    if told is not None and int(told[0]) != period:
        raise AllocgymError(f"period: {period} expected, given {int(told[0])}")
    if decision is None:
        return
    cost = int(problem.cost(decision)[0])
    if outcome.spent[0] > cost:
        raise AllocgymError(
            f"spent: at most the {cost} units decided expected, given {outcome.spent[0]}"
        )
    decided, done = getattr(decision, "units", None), getattr(outcome, "units", None)
    if decided is not None and done is not None and not np.array_equal(decided, done):
        raise AllocgymError(
            f"units: those decided expected, {decided[0].tolist()}; given {done[0].tolist()}"
        )


def _shown(value: np.ndarray) -> str:
    text = np.array2string(value[0] if value.ndim else value, threshold=8, precision=4)
    return " ".join(text.split())
