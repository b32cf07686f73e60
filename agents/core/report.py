"""The report of a run: one self-contained HTML file, and its decisions as a table."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.agents.core.controller import Controller
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


def decisions_table(controller: Controller, names: Sequence[str]) -> Any:
    """One row a period: shares, what was spent, seconds, interventions (a pandas DataFrame)."""
    import pandas as pd

    rows = []
    for keyed, outcome in zip(controller.decisions, controller.outcomes[1:], strict=False):
        row: dict[str, Any] = {"period": keyed.period, "key": keyed.key}
        row |= controller.agent.problem.tabulate(keyed.decision, names)
        for field in controller.agent.problem.traces:
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


def _picture(controller: Controller, names: Sequence[str]) -> Any:
    """Draw the shares, where shares are what is decided, and every trace of the problem."""
    split = [k.decision.fractions for k in controller.decisions]
    shown = bool(split) and split[0] is not None
    traces = controller.agent.problem.traces
    panels = max(shown + len(traces), 1)
    picture, axes = figures.figure(4.75 * panels, 3.4, panels)
    if shown:
        figures.stack(axes[0], np.array([f[0, : len(names)] for f in split]), list(names))
        axes[0].locator_params(axis="x", integer=True)
        if not traces or len(names) > figures.MANY:
            axes[0].legend(fontsize=8)
    for axis, (field, label) in zip(axes[shown:], traces.items(), strict=False):
        values = np.array([getattr(o, field)[0] for o in controller.outcomes])
        axis.set(xlabel="period", ylabel=label)
        axis.locator_params(axis="x", integer=True)
        if values.ndim == 1:
            axis.plot(np.arange(len(values)), values, marker=".")
            continue
        figures.lines(axis, values[:, : len(names)], list(names))
        axis.legend(fontsize=8)
    return picture


def deployment_report(
    controller: Controller, folder: Path, claimants: Sequence[str], ledger: dict[str, Any]
) -> Path:
    """Write ``decisions.parquet`` and ``report.html`` of one deployment."""
    first = controller.outcomes[0]
    names = [n for n, there in zip(claimants, first.ready[0], strict=False) if there]
    frame = decisions_table(controller, names)
    frame.to_parquet(folder / "decisions.parquet")
    picture = _picture(controller, names)
    shown = frame
    if len(names) > figures.MANY:
        # A column for every claimant would fill a wall: those are in the Parquet file.
        ends = tuple(f" {name}" for name in names)
        shown = frame[[c for c in frame if not c.endswith(ends)]]
    events = [(k.period, note) for k in controller.decisions for note in k.interventions]
    accounts = [(name, *values) for name, values in ledger.items() if isinstance(values, list)]
    parts = [
        "<h2>Allocation and outcome</h2>",
        image(picture),
        "<h2>Ledger (budget units)</h2>",
        table(["account", "units"], accounts),
        "<h2>Guard events</h2>",
        table(["period", "event"], events) if events else "<p>None.</p>",
        "<h2>Decisions</h2>",
        table(list(shown), shown.values.tolist()),
        "" if shown is frame else "<p>What each claimant got: decisions.parquet.</p>",
    ]
    return write(folder / "report.html", "Deployment report", parts)
