"""Fits the channel and the traffic generators to TRACTOR's recordings; writes ``fits/``.

``python -m allocgym.simulators.prb_slicing.calibration [FOLDER]`` with the public data at hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from allocgym.envs.core.journal import write_json
from allocgym.simulators.core import public_data
from allocgym.simulators.prb_slicing import traffic
from allocgym.simulators.prb_slicing.traffic import Trace

SOURCE = "github.com/genesys-neu/TRACTOR @ f2f052c (MIT)"
LEVELS = 8
COLUMNS = {
    "dl_mcs": "mcs",
    "dl_buffer [bytes]": "buffer",
    "tx_brate downlink [Mbps]": "rate",
    "dl_cqi": "cqi",
    "sum_requested_prbs": "requested",
    "sum_granted_prbs": "granted",
    "slice_prb": "prb",
    "Timestamp": "time",
    "IMSI": "imsi",
}


def kpi_rows() -> Any:
    """Every recorded KPI row, exact repeats removed, with its file (a pandas DataFrame)."""
    import pandas as pd

    root = public_data.path("prb/tractor/logs")
    frames = []
    for file in sorted(root.rglob("*.csv.gz")):
        frame = pd.read_csv(file, usecols=lambda c: c in COLUMNS).rename(columns=COLUMNS)
        frames.append(frame.assign(file=str(file.relative_to(root).parent)))
    return pd.concat(frames).drop_duplicates(["imsi", "time"]).reset_index(drop=True)


def fit_channel(rows: Any) -> dict[str, Any]:
    """Mean CQI of users, its spread, the spread and memory within a user; held out by run."""
    rows = rows[rows["cqi"] > 0].sort_values(["file", "imsi", "time"])
    users = []
    for (file, _), group in rows.groupby(["file", "imsi"], sort=True):
        cqi = group["cqi"].to_numpy(float)
        if len(cqi) < 200:
            continue
        gap = np.diff(group["time"].to_numpy(float))
        pairs = (gap > 150) & (gap < 400)
        centred = cqi - cqi.mean()
        lag = (centred[1:] * centred[:-1])[pairs].mean() / max(centred.var(), 1e-9)
        users.append((file, cqi.mean(), cqi.std(), lag))
    train, test = users[0::2], users[1::2]

    def summary(part: list[Any]) -> dict[str, float]:
        mean, sd, lag = (np.array([r[k] for r in part]) for k in (1, 2, 3))
        return {
            "mean": round(float(mean.mean()), 3),
            "mean_sd": round(float(mean.std(ddof=1)), 3),
            "sd": round(float(np.sqrt((sd**2).mean())), 3),
            "rho_250ms": round(float(np.median(lag)), 3),
        }

    fit, held = summary(train), summary(test)
    return {
        **fit,
        "source": SOURCE,
        "data": "logs: dl_cqi by user and run",
        "users": len(train),
        "held_out": held,
        "held_out_users": len(test),
        "held_out_error": {k: round(abs(fit[k] - held[k]), 3) for k in fit},
    }


def statistics(traces: list[Trace]) -> dict[str, float]:
    """What a generator should reproduce: rate, burstiness, activity, memory, peaks."""
    bins = np.concatenate([t.bins(250.0) for t in traces])
    rate = bins * 8 / 0.25 / 1e6
    lag = np.corrcoef(rate[1:], rate[:-1])[0, 1] if rate.std() > 0 else 0.0
    return {
        "mean_mbps": round(float(rate.mean()), 5),
        "cv": round(float(rate.std() / rate.mean()), 3),
        "lag1": round(float(lag), 3),
        "active": round(float((bins > 0).mean()), 4),
        "p99_mbps": round(float(np.quantile(rate, 0.99)), 3),
    }


def fit_kind(traces: list[Trace]) -> dict[str, Any]:
    """Levels and transitions of bytes per 250 ms, packet sizes, packets per burst."""
    sequences = [t.bins(250.0) for t in traces]
    busy = np.concatenate([s[s > 0] for s in sequences])
    edges = np.quantile(busy, [0.25, 0.5, 0.7, 0.85, 0.95, 0.99])
    grid = np.linspace(0, 1, 21)
    moves = np.zeros((LEVELS, LEVELS))
    members: list[list[float]] = [[] for _ in range(LEVELS)]
    for sequence in sequences:
        level = np.where(sequence > 0, 1 + np.searchsorted(edges, sequence), 0)
        np.add.at(moves, (level[:-1], level[1:]), 1)
        for k in range(1, LEVELS):
            members[k] += sequence[level == k].tolist()
    moves += 1e-3
    transitions = moves / moves.sum(1, keepdims=True)
    stationary = np.linalg.matrix_power(transitions, 4096)[0]
    sizes = np.concatenate([t.sizes for t in traces])
    bursts: list[np.ndarray] = []
    for t in traces:
        # Packets within 2 ms of each other came together.
        ends = np.flatnonzero(np.diff(t.times, append=np.inf) > 2.0)
        bursts.append(np.diff(ends, prepend=-1))
    return {
        "transitions": np.round(transitions, 5).tolist(),
        "stationary": np.round(stationary, 5).tolist(),
        "levels": [[0.0]] + [np.round(np.quantile(m, grid), 1).tolist() for m in members[1:]],
        "packet_sizes": np.round(np.quantile(sizes, grid), 1).tolist(),
        "burst_packets": np.round(np.quantile(np.concatenate(bursts), grid), 2).tolist(),
    }


def fit_traffic() -> dict[str, Any]:
    """Generators of every kind, fitted to the training split, with errors on both splits."""
    train, test = traffic.recorded("train"), traffic.recorded("test")
    out: dict[str, Any] = {"source": SOURCE, "data": "raw: downlink packets"}
    for kind, traces in train.items():
        out[kind] = {
            **fit_kind(traces),
            "files": [t.name for t in traces],
            "recorded": statistics(traces),
            "held_out": statistics(test[kind]),
        }
    return out


def add_errors(fits: dict[str, Any]) -> None:
    """Statistics of what the fitted generators make, and their relative errors."""
    for kind in traffic.FILES:
        made = statistics([traffic.generate(kind, 1200.0, k) for k in range(4)])
        entry = fits[kind]
        entry["generated"] = made
        for name in ("recorded", "held_out"):
            entry[f"{name}_error"] = {
                k: round(made[k] / v - 1, 3) for k, v in entry[name].items() if v
            }


def main(folder: Path = traffic.FITS) -> None:
    """Fit everything and write the JSON files."""
    write_json(folder / "channel.json", fit_channel(kpi_rows()))
    fits = fit_traffic()
    write_json(folder / "traffic.json", fits)
    if folder == traffic.FITS:
        traffic.fits.cache_clear()
        add_errors(fits)
        write_json(folder / "traffic.json", fits)
    for kind in traffic.FILES:
        shown = {k: fits[kind].get(k) for k in ("recorded", "generated", "held_out")}
        print(kind, json.dumps(shown))


if __name__ == "__main__":
    main(*[Path(a) for a in sys.argv[1:2]])
