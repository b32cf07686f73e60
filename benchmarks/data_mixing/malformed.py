"""Small tables of runs with one thing wrong each, or with something that does no harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

Change = Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, pd.DataFrame] | None]
"""Changes (ratios, metrics) in place, or returns others."""
DOMAINS = ("web", "code", "books")


def whole(runs: int = 12) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Ratios and metrics with nothing wrong."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(len(DOMAINS)), runs)
    ids = [f"run-{k}" for k in range(runs)]
    ratios = pd.DataFrame(shares, columns=list(DOMAINS))
    metrics = pd.DataFrame({"bpb": 1 + 0.3 / (shares[:, 1] + 0.1)})
    ratios.insert(0, "run", ids)
    metrics.insert(0, "run", ids)
    return ratios.astype(object), metrics.astype(object)


def written(folder: Path, change: Change, marked: bool = False) -> tuple[Path, Path]:
    """Write both tables, changed; ``marked`` puts a byte order mark before them."""
    frames = whole()
    frames = change(*frames) or frames
    paths = folder / "ratios.csv", folder / "metrics.csv"
    marked = marked or getattr(change, "marked", False)
    for path, frame in zip(paths, frames, strict=True):
        frame.to_csv(path, index=False, encoding="utf-8-sig" if marked else "utf-8")
    return paths


def _set(which: int, row: int, column: str, value: object) -> Change:
    def change(*frames: pd.DataFrame) -> None:
        frames[which].loc[row, column] = value

    return change


def _marked(ratios: pd.DataFrame, metrics: pd.DataFrame) -> None:
    """Nothing: the byte order mark is put there by `written`."""


_marked.marked = True  # type: ignore[attr-defined]

CASES: dict[str, Change] = {
    "a run without metrics": lambda r, m: (r, m.drop(index=3)),
    "a run without ratios": lambda r, m: (r.drop(index=3), m),
    "shares that do not sum to 1": _set(0, 2, "web", 0.9),
    "a negative share": _set(0, 2, "web", -0.2),
    "NaN among the shares": _set(0, 2, "web", np.nan),
    "NaN among the metrics": _set(1, 2, "bpb", np.nan),
    "infinity among the metrics": _set(1, 2, "bpb", np.inf),
    "text for a share": _set(0, 2, "web", "lots"),
    "text for a metric": _set(1, 2, "bpb", "1,5"),
    "an id twice in the ratios": _set(0, 2, "run", "run-1"),
    "an id twice in the metrics": _set(1, 2, "run", "run-1"),
    "no ids": lambda r, m: (r.drop(columns="run"), m),
    "no metrics": lambda r, m: (r, m[["run"]]),
    "no rows": lambda r, m: (r[:0], m[:0]),
    "one domain": lambda r, m: (r[["run", "web"]], m),
}
HARMLESS: dict[str, Change] = {
    "other order of rows": lambda r, m: (r[::-1], m.sample(frac=1, random_state=0)),
    "other order of columns": lambda r, m: (r[["books", "run", "web", "code"]], m[["bpb", "run"]]),
    "a byte order mark": _marked,
    "columns name and index": lambda r, m: (r.assign(name="x", index=range(len(r))), m),
    "an unnamed first column": lambda r, m: (r.reset_index(names=""), m.reset_index(names="")),
}
