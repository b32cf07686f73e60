"""Your own runs: ``allocgym calibrate data-mixing --ratios ...`` and ``allocgym recommend``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from allocgym.agents.data_mixing import recommendation
from allocgym.agents.data_mixing.recommendation import Recommendation, Target
from allocgym.benchmarks.core.suite import console, show
from allocgym.envs.core.errors import AllocgymError
from allocgym.envs.core.journal import atomic, write_json
from allocgym.simulators.data_mixing import ensemble, table, table_fit
from allocgym.simulators.data_mixing.ensemble import TableFit
from allocgym.simulators.data_mixing.table import Facts, Table

NAMED = 6
"""Domains named in a line; of more, their number is told."""


@dataclasses.dataclass(frozen=True)
class Source:
    """Where runs are read from: two tables, or a folder of run folders.

    Attributes:
        ratios, metrics: the two tables.
        tokens: a file of `Facts`, or None.
        phases: whether columns of ``ratios`` are ``domain@phase``.
        runs: a folder that holds run folders of ``allocgym deploy data-mixing``, instead of tables.
        each_metric: held-out errors of every metric beside those of the families.
    """

    ratios: Path | None = None
    metrics: Path | None = None
    tokens: Path | None = None
    phases: bool = False
    runs: Path | None = None
    each_metric: bool = False

    def read(self) -> tuple[Table, Facts]:
        """Read the runs.

        Raises:
            AllocgymError: half of a source, two of them, or files that are not what they should be.
        """
        facts = Facts.read(self.tokens) if self.tokens is not None else Facts()
        if self.runs is not None:
            if self.ratios is not None or self.metrics is not None:
                raise AllocgymError("runs: tables or run folders expected, given both")
            return from_folders(self.runs, facts), facts
        if self.ratios is None or self.metrics is None:
            lacking = "ratios" if self.ratios is None else "metrics"
            raise AllocgymError(f"{lacking}: both --ratios and --metrics expected, given one")
        return table.read(self.ratios, self.metrics, facts, self.phases), facts


def from_folders(root: Path, facts: Facts) -> Table:
    """Read finished run folders: each period is a phase, each domain's last measured loss a family.

    Raises:
        AllocgymError: no finished run, or runs of different domains or lengths.
    """
    files = sorted(Path(root).glob("*/decisions.parquet"))
    files = [f for f in files if (f.parent / "ledger.json").exists()]
    if not files:
        raise AllocgymError(f"runs: {root} holds no finished run folder (decisions.parquet)")
    frames = {f.parent.name: pd.read_parquet(f) for f in files}
    domains: list[str] = []
    shares: list[np.ndarray] = []
    values: list[np.ndarray] = []
    for name, frame in frames.items():
        found = [str(c).removeprefix("units ") for c in frame if str(c).startswith("units ")]
        domains = domains or found
        if found != domains or (shares and len(frame) != len(shares[0])) or not found:
            raise AllocgymError(
                f"runs: all runs with the same domains and periods expected, {name!r} has "
                f"{len(frame)} periods of {', '.join(found) or 'no domains'}"
            )
        units = frame[[f"units {d}" for d in found]].to_numpy(float)
        shares.append(units / units.sum(1, keepdims=True))
        values.append(frame[[f"losses {d}" for d in found]].to_numpy(float)[-1])
    arrays = np.stack(shares), np.stack(values)
    return table.checked(list(frames), domains, domains, arrays, facts)


def fit(out: Path, **source: Any) -> None:
    """Fit a law to runs, print what it can be trusted with, and write ``fit.json``.

    Args:
        out: folder to write to.
        source: fields of `Source`.
    """
    from allocgym.benchmarks.commands.arguments import progress

    given = Source(**source)
    runs, facts = given.read()
    with progress("fitting", table_fit.FOLDS + table_fit.MEMBERS) as told:
        found = table_fit.fit_table(runs, progress=told)
    describe(found)
    if given.each_metric and given.runs is None:
        _by_metric(given, facts)
    file = out / "fit.json"
    found.write(file)
    console.print(f"written to {file}", highlight=False, soft_wrap=True)


def describe(found: TableFit) -> None:
    """Print held-out errors, what the runs can tell, and whether the law may be used to rank."""
    rows: list[list[Any]] = []
    told = found.told()
    names = [*found.families, "equal mean"] if len(found.families) > 1 else list(found.families)
    for k, name in enumerate(names):
        single = k < len(found.families)
        weights = np.eye(len(found.families))[k] if single else found.weights(None)
        rank = found.rank(weights)
        rows.append(
            [
                name,
                f"{rank.r2:.3f}",
                f"{rank.rmse:.4f}",
                f"{rank.spearman:.3f} [{rank.low:.3f}, {rank.high:.3f}]",
                f"{rank.optimism:+.4f}",
                f"{told[k].sum()} of {len(found.domains)}" if single else "",
                "no" if rank.doubts else "yes",
            ]
        )
    columns = ["family", "R2", "rmse", "Spearman, 95 %", "worse than foretold"]
    title = (
        f"{len(found.measured)} runs, {len(found.domains)} domains: predictions of runs left out "
        "(worse than foretold: the tenth that was foretold best)"
    )
    show(title, [*columns, "effects told", "may promise"], rows)
    for name, row in zip(found.families, told, strict=True):
        hidden = [d for d, sure in zip(found.domains, row, strict=True) if not sure]
        if hidden:
            more = f" and {len(hidden) - NAMED} more" if len(hidden) > NAMED else ""
            _say(
                f"{name}: the sign of these effects is not told: {', '.join(hidden[:NAMED])}{more}"
            )
    rare = [d for d, runs in zip(found.domains, found.trained, strict=True) if runs < 3]
    if rare:
        _say(f"in fewer than three runs: {', '.join(rare)}")
    _say(order(found))
    for k, name in enumerate(found.families):
        for doubt in found.rank(np.eye(len(found.families))[k]).doubts:
            _say(f"{name}: NO PROMISE: {doubt}")


def order(found: TableFit) -> str:
    """What the runs tell about the order of data, in a sentence."""
    if found.order_matters:
        rates = [m.forgetting for m in found.members]
        low, high = np.quantile(rates[1:], (0.025, 0.975))
        first = float(np.exp(-rates[0]))
        return (
            f"order: {found.switching} runs switch; the first tokens of a run count {first:.2f} times "
            f"as much as the last (rate {rates[0]:.2f} [{low:.2f}, {high:.2f}])"
        )
    if found.switching < table_fit.SWITCHING:
        return (
            f"order: {found.switching} runs switch their mixture, {table_fit.SWITCHING} are needed: "
            "path dependence cannot be told and is zero"
        )
    return (
        f"order: {found.switching} runs switch their mixture and show no effect of it that is sure: "
        "path dependence is zero"
    )


def _by_metric(source: Source, facts: Facts) -> None:
    """Held-out errors of every metric, each fitted on its own."""
    assert source.ratios is not None and source.metrics is not None
    names = table.metrics(source.metrics)
    size = 2
    rows: list[list[Any]] = []
    for begin in range(0, len(names), size):
        some = {name: [name] for name in names[begin : begin + size]}
        runs = table.read(
            source.ratios, source.metrics, dataclasses.replace(facts, families=some), source.phases
        )
        foretold = table_fit.out_of_fold(runs, False)
        for k, name in enumerate(some):
            rank = ensemble.rank_agreement(runs.values[:, k], foretold[:, k], len(runs.domains))
            rows.append([name, f"{rank.r2:.3f}", f"{rank.rmse:.4f}", f"{rank.spearman:.3f}"])
    show("each metric: predictions of runs left out", ["metric", "R2", "rmse", "Spearman"], rows)


def recommend(
    path: Path,
    weights: dict[str, float] | None = None,
    out: Path | None = None,
    anyway: bool = False,
    **target: Any,
) -> None:
    """Print the mixture with the largest sure gain, and what is foretold of it.

    Args:
        path: of a fit.
        weights: of families by name, or None for equal ones.
        out: ``.json`` or ``.csv`` file to write, or None.
        anyway: answer where the fit cannot rank.
        target: further fields of `Target`.

    Raises:
        AllocgymError: no fit, a name or number that is not allowed, or a fit that cannot rank.
    """
    if out is not None and out.suffix not in (".json", ".csv"):
        raise AllocgymError(f"out: a .json or .csv file expected, given {out}")
    found = ensemble.read(path)
    share = found.weights(weights)
    wanted = Target(share, **target)
    rank = found.rank(share)
    if rank.doubts and not anyway:
        raise AllocgymError(
            f"recommend: this fit promises nothing: {'; '.join(rank.doubts)} (--anyway to see it)"
        )
    plans = {"static": recommendation.recommend(found, wanted)}
    if found.order_matters:
        plans["schedule"] = recommendation.recommend(found, wanted, len(found.lengths))
    for name, plan in plans.items():
        _show(found, name, plan, wanted)
        _foretold(name, plan, rank.optimism)
    _say(f"best of the runs: {float((found.measured @ share).min()):.4f}")
    for doubt in rank.doubts:
        _say(f"NO PROMISE: {doubt}")
    outside = [
        d for d, p, m in zip(found.domains, found.prior, found.largest, strict=True) if p > m
    ]
    if outside:
        _say(
            f"the prior gives more than any run did to {', '.join(outside[:NAMED])}: what is foretold "
            "of the prior is extrapolated"
        )
    if out is not None:
        _write(out, found, plans, rank.doubts)


def _show(found: TableFit, name: str, plan: Recommendation, wanted: Target) -> None:
    whole = found.lengths_of(len(plan.shares)) @ plan.shares
    rows: list[list[Any]] = []
    for j in np.argsort(-whole, kind="stable"):
        each = [f"{s:.4f}" for s in plan.shares[:, j]]
        epochs = ""
        if found.tokens is not None and wanted.run_tokens is not None:
            epochs = f"{whole[j] * wanted.run_tokens / found.tokens[j]:.2f}"
        rows.append([found.domains[j], f"{found.prior[j]:.4f}", *each, epochs])
    phases = len(plan.shares)
    titles = ["share"] if phases == 1 else [f"phase {k + 1}" for k in range(phases)]
    show(f"{name} mixture", ["domain", "prior", *titles, "epochs"], rows)


def _foretold(name: str, plan: Recommendation, optimism: float) -> None:
    _say(
        f"{name}: foretold {plan.value:.4f}, a gain of {plan.gain:.4f} [{plan.low:.4f}, {plan.high:.4f}] "
        f"(90 % of the ensemble) over the prior, {plan.distance:.3f} nats away"
    )
    if optimism > 0:
        _say(
            f"{name}: runs foretold best came out {optimism:.4f} worse: count on "
            f"{max(plan.low - optimism, 0):.4f}"
        )
    if plan.bound:
        _say(f"{name}: at the cap of tokens, or of what was tried: {', '.join(plan.bound)}")


def _write(
    out: Path, found: TableFit, plans: dict[str, Recommendation], doubts: tuple[str, ...]
) -> None:
    if out.suffix == ".json":
        plain = {name: recommendation.as_dict(found, plan) for name, plan in plans.items()}
        write_json(out, {**plain, "doubts": list(doubts)})
    else:
        frame = pd.DataFrame({"domain": found.domains, "prior": found.prior})
        for name, plan in plans.items():
            for k, row in enumerate(plan.shares):
                frame[name if len(plan.shares) == 1 else f"{name}@{k + 1}"] = row
        with atomic(out) as file:
            frame.to_csv(file, index=False, float_format="%.6f")
    _say(f"written to {out}")


def _say(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
