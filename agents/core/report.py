"""The report of a run: one self-contained HTML file, and its decisions as a table."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core.controller import Controller
from allocgym.agents.core.history import History
from allocgym.envs.core import figures
from allocgym.envs.core.journal import atomic

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;display:block;overflow-x:auto}
td,th{white-space:nowrap;padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%}
.note{background:#fff6d6;padding:.6em 1em;border-left:4px solid #e0b000}
"""


def image(picture: Any) -> str:
    """An ``<img>`` tag that carries its picture."""
    return f'<img src="data:image/png;base64,{base64.b64encode(figures.png(picture)).decode()}">'


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; cells are escaped."""

    def cell(value: Any) -> str:
        return html.escape(f"{value:.4f}" if isinstance(value, float) else str(value))

    head = "".join(f"<th>{cell(c)}</th>" for c in columns)
    body = "".join("<tr>" + "".join(f"<td>{cell(v)}</td>" for v in r) + "</tr>" for r in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def write(path: Path, title: str, parts: Sequence[str]) -> Path:
    """Write a self-contained page."""
    with atomic(path) as file:
        file.write(
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
            f"<style>{STYLE}</style><body><h1>{html.escape(title)}</h1>" + "\n".join(parts)
        )
    return path


Run = Controller | History


def decisions_table(run: Run, names: Sequence[str]) -> Any:
    """One row a period: shares, what was spent, seconds, interventions (a pandas DataFrame)."""
    import pandas as pd

    rows = []
    for keyed, outcome in zip(run.decisions, run.outcomes[1:], strict=False):
        row: dict[str, Any] = {"period": keyed.period, "key": keyed.key}
        row |= run.problem.tabulate(keyed.decision, names)
        for field in run.problem.traces:
            value = getattr(outcome, field)[0]
            if np.ndim(value) == 0:
                row[field] = float(value)
                continue
            for j, name in enumerate(names):
                row[f"{field} {name}"] = float(value[j])
        row["spent"] = int(outcome.spent[0])
        row["seconds"] = float(outcome.seconds[0])
        row["interventions"] = "; ".join(keyed.interventions)
        rows.append(row)
    return pd.DataFrame(rows)


def _picture(run: Run, names: Sequence[str]) -> Any:
    """Draw the shares, where shares are what is decided, and every trace of the problem."""
    split = [k.decision.fractions for k in run.decisions]
    shown = bool(split) and split[0] is not None
    traces = run.problem.traces
    panels = max(shown + len(traces), 1)
    picture, axes = figures.figure(4.75 * panels, 3.4, panels)
    if shown:
        figures.stack(axes[0], np.array([f[0, : len(names)] for f in split]), list(names))
        axes[0].locator_params(axis="x", integer=True)
        if not traces or len(names) > figures.MANY:
            axes[0].legend(fontsize=8)
    for axis, (field, label) in zip(axes[shown:], traces.items(), strict=False):
        values = np.array([getattr(o, field)[0] for o in run.outcomes])
        axis.set(xlabel="period", ylabel=label)
        axis.locator_params(axis="x", integer=True)
        if values.ndim == 1:
            axis.plot(np.arange(len(values)), values, marker=".")
            continue
        figures.lines(axis, values[:, : len(names)], list(names))
        axis.legend(fontsize=8)
    return picture


def deployment_report(
    run: Run, folder: Path, claimants: Sequence[str], ledger: dict[str, Any]
) -> Path:
    """Write ``decisions.parquet`` and ``report.html`` of one deployment.

    Args:
        run: its controller, or its history.
        folder: where to.
        claimants: their names.
        ledger: accounts as in ``ledger.json``.
    """
    first = run.outcomes[0]
    names = [n for n, there in zip(claimants, first.ready[0], strict=False) if there]
    frame = decisions_table(run, names)
    frame.to_parquet(folder / "decisions.parquet")
    picture = _picture(run, names)
    shown = frame
    if len(names) > figures.MANY:
        # A column for every claimant would fill a wall: those are in the Parquet file.
        ends = tuple(f" {name}" for name in names)
        shown = frame[[c for c in frame if not c.endswith(ends)]]
    events = [(e.period, e.kind, e.detail) for k in run.decisions for e in k.events]
    counts = sorted(Counter(kind for _, kind, _ in events).items())
    accounts = [(name, *ledger[name]) for name in ("granted", "spent", "wasted")]
    parts = [
        "<h2>Allocation and outcome</h2>",
        image(picture),
        "<h2>Ledger (budget units)</h2>",
        table(["account", "units"], accounts),
        "<h2>Guard events</h2>",
        table(["kind", "events"], counts) if events else "<p>None.</p>",
        table(["period", "kind", "event"], events) if events else "",
        "<h2>Decisions</h2>",
        table(list(shown), shown.values.tolist()),
        "" if shown is frame else "<p>What each claimant got: decisions.parquet.</p>",
    ]
    return write(folder / "report.html", "Deployment report", parts)
