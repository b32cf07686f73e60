"""Tiny tables of runs whose law is known."""

import json

import numpy as np
import pandas as pd

from allocgym.simulators.data_mixing import table
from allocgym.simulators.data_mixing.additive import AdditiveLaw
from allocgym.simulators.data_mixing.ensemble import phase_weights

DOMAINS = ("web", "code", "books", "math")
LAWS = {
    "coding": AdditiveLaw(0.6, np.log([0.3, 2.0, 0.2, 0.6]), np.full(4, 0.5), 0.01),
    "reading": AdditiveLaw(0.9, np.log([1.0, 0.2, 2.0, 0.3]), np.full(4, 0.5), 0.01),
}


def write(folder, runs=60, noise=0.002, phases=1, forgetting=0.0, domains=DOMAINS):
    """Write the three files of a table and return their paths."""
    rng = np.random.default_rng(runs)
    shares = rng.dirichlet(np.ones(len(domains)), (runs, phases))
    exposed = phase_weights(np.full(phases, 1 / phases), forgetting) @ shares
    values = {name: law.predict(exposed[:, :4]) for name, law in LAWS.items()}
    ids = [f"r{k}" for k in range(runs)]
    columns = [d if phases == 1 else f"{d}@{k + 1}" for k in range(phases) for d in domains]
    ratios = pd.DataFrame(shares.reshape(runs, -1), columns=columns)
    metrics = pd.DataFrame({n: v + rng.normal(0, noise, runs) for n, v in values.items()})
    for frame, name in ((ratios, "ratios"), (metrics, "metrics")):
        frame.insert(0, "run", ids)
        frame.to_csv(folder / f"{name}.csv", index=False)
    counts = {d: 1e9 * (k + 1) for k, d in enumerate(domains)}
    (folder / "tokens.json").write_text(json.dumps({"token_counts": counts}))
    return folder / "ratios.csv", folder / "metrics.csv", folder / "tokens.json"


def read(folder, **options):
    """A table of runs with a known law."""
    ratios, metrics, tokens = write(folder, **options)
    facts = table.Facts.read(tokens)
    return table.read(ratios, metrics, facts, phases=options.get("phases", 1) > 1)
