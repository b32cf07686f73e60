"""``--suite real``: paired real training runs on domains that informed no fit."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from allocgym.agents.core import catalogue
from allocgym.agents.core.agent import rollout
from allocgym.agents.core.training import train
from allocgym.agents.data_mixing.training import FOR_REAL_RUNS
from allocgym.benchmarks.core.compare import as_dict, normalised_gain, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, console, finish, run_cells, show
from allocgym.benchmarks.data_mixing.cells import describe, run_cell
from allocgym.envs.core.builder import make_backend, make_problem
from allocgym.simulators.core import public_data

FREE = ("uniform", "replay-5%", "replay-10%", "replay-25%", "replay-50%", "weights")
FIXED = (*FREE, "odm")
SWEEP = ("uniform", "replay-10%", "replay-25%", "replay-50%", "weights")
LEARNED = "learned"
BASES = 3
"""Base models of a continual case."""
ABLATIONS = ("own average, static", "own schedule, other seed", "losses shuffled")


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of real run.

    Attributes:
        name: of the case.
        scenario: of the real back end, and of the simulator the agent is trained in.
        setting: overrides of the real back end.
        target_weight: weight of the target domain, None where all count alike.
        needs: public data without which the case is skipped.
        continual: counts in the pooled continual comparison.
        training: what its agent is trained with.
        first_base: seed of the first base model; seed s continues from base s mod `BASES` after it.
    """

    name: str
    scenario: str
    setting: dict[str, Any]
    target_weight: float | None = 0.5
    needs: str | None = None
    continual: bool = True
    training: dict[str, float] = dataclasses.field(default_factory=lambda: FOR_REAL_RUNS)
    first_base: int = 0

    @property
    def weights(self) -> dict[str, Any]:
        """The objective's weights as a setting; empty where all domains count alike."""
        if self.target_weight is None:
            return {}
        *source, target = self.setting["domains"]
        rest = (1 - self.target_weight) / len(source)
        return {"weights": {**dict.fromkeys(source, rest), target: self.target_weight}}

    def cell(self, method: Any, seed: int, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """Describe one run of a method (a name, an agent file, a schedule)."""
        base = {"base_seed": self.first_base + seed % BASES} if self.continual else {}
        setting = {**self.setting, **self.weights, **base, **(extra or {})}
        described: dict[str, Any] = describe(self.scenario, setting, method, seed)
        return described

    def score(self, losses: list[float], domains: list[str]) -> float:
        """Weigh the losses of the domains, bits per byte."""
        named = self.weights.get("weights", dict.fromkeys(domains, 1 / len(domains)))
        return float(sum(named[d] * loss for d, loss in zip(domains, losses, strict=True)))


def _continual(source: list[str], target: str, steps: int = 200) -> dict[str, Any]:
    return {"domains": [*source, target], "source": source, "steps": steps, "base_steps": 800}


CORPORA = "mixing/corpora"
# None of these domains informed a fit (benchmarks/data_mixing/calibrate.py has those).
CASES = (
    Case("markup+roman -> logs", "continual-pretraining", _continual(["markup", "roman"], "logs")),
    Case(
        "logs+sorting -> markup, weight .7",
        "continual-pretraining",
        _continual(["logs", "sorting"], "markup"),
        0.7,
    ),
    Case(
        "shakespeare+sorting -> gsm8k",
        "continual-pretraining",
        _continual(["shakespeare", "sorting"], "gsm8k"),
        needs=CORPORA,
    ),
    Case(
        "gsm8k+roman -> shakespeare, short",
        "continual-pretraining",
        _continual(["gsm8k", "roman"], "shakespeare", 100),
        needs=CORPORA,
    ),
    Case(
        "scratch: logs, markup, roman, sorting",
        "scratch",
        {"domains": ["logs", "markup", "roman", "sorting"]},
        None,
        continual=False,
    ),
    # Gates and learning curves far from the fitted ones overflow: steady, but not wide.
    Case(
        "skills: chains of three",
        "skills",
        {},
        None,
        continual=False,
        training={"steadiness": FOR_REAL_RUNS["steadiness"]},
    ),
)


def run_case(
    case: Case, agent: Path, seeds: int, folder: Path, rivals: tuple[str, ...]
) -> dict[str, Any]:
    """Run every method of a case and return scores, ``(seeds,)`` each, and the learned runs."""
    if not case.continual:
        # Nothing to replay: these are the uniform split.
        rivals = tuple(m for m in rivals if not m.startswith("replay") and m != "weights")

    def runs(method: Any, extra: dict[str, Any] | None = None) -> list[dict[str, Any]]:
        each = method if isinstance(method, list) else [method] * seeds
        return run_cells([case.cell(m, s, extra) for s, m in enumerate(each)], run_cell, folder)

    # One pass builds the base models, so that two processes never build the same.
    run_cells([case.cell(rivals[0], s) for s in range(min(seeds, BASES))], run_cell, folder)
    first = [case.cell(m, s) for s in range(seeds) for m in (*rivals, str(agent))]
    run_cells(first, run_cell, folder)
    results = {m: runs(m) for m in rivals}
    results[LEARNED] = runs(str(agent))
    domains = results[LEARNED][0]["domains"]
    plans = [r["shares"] for r in results[LEARNED]]
    results[ABLATIONS[0]] = runs([{"schedule": [np.mean(p, 0).round(6).tolist()]} for p in plans])
    results[ABLATIONS[1]] = runs([{"schedule": plans[(s + 1) % seeds]} for s in range(seeds)])
    results[ABLATIONS[2]] = runs({"file": str(agent)})
    if case.continual:
        results["static sweep (pays 20 %)"] = _sweep(case, runs, seeds)
    scores = {
        m: np.array([case.score(r["heldout"], domains) for r in rs]) for m, rs in results.items()
    }
    return {"scores": scores, "plans": plans, "domains": domains}


def _sweep(case: Case, runs: Any, seeds: int) -> list[dict[str, Any]]:
    """Short runs of every candidate for a fifth of the tokens, the best on the other four."""
    steps = case.setting["steps"]
    short = steps // 5 // len(SWEEP)
    trials = {m: runs(m, {"steps": short, "horizon": 1}) for m in SWEEP}
    best = [
        min(SWEEP, key=lambda m: case.score(trials[m][s]["losses"][-1], case.setting["domains"]))
        for s in range(seeds)
    ]
    rest: list[dict[str, Any]] = runs(best, {"steps": steps - short * len(SWEEP)})
    return rest


def simulated(case: Case, agent: Path, names: tuple[str, ...]) -> dict[str, float]:
    """What the simulator predicts for each policy: mean objective minus uniform's, 200 seeds."""
    problem: Any = make_problem("data-mixing")
    overrides: dict[str, Any] = {"domains": len(case.setting.get("domains", range(5)))}
    overrides["steps"] = float(case.setting.get("steps", 200))
    overrides["schedules"] = ("cosine",)
    if case.target_weight is not None:
        overrides["target_weight"] = case.target_weight
    means = {}
    for name in (*names, str(agent)):
        backend = make_backend(problem, "twin", scenario=case.scenario, num_envs=200, **overrides)
        one = catalogue.make(name, problem)
        rollout(one, backend, np.arange(200))
        means[LEARNED if name == str(agent) else name] = float(one.memory.objective.mean())
    return {k: v - means["uniform"] for k, v in means.items()}


def report_case(
    case: Case, result: dict[str, Any], predicted: dict[str, float]
) -> tuple[dict[str, Any], list[Figure]]:
    """Print one case; return its JSON and its figures."""
    scores = result["scores"]
    ours = scores[LEARNED]
    free = min((m for m in scores if m in FREE), key=lambda m: scores[m].mean())
    rows = []
    for name, values in sorted(scores.items(), key=lambda item: item[1].mean()):
        d = paired(ours, values)
        rows.append(
            [
                name,
                float(values.mean()),
                f"{d.mean:+.4f}",
                f"[{d.low:+.4f}, {d.high:+.4f}]",
                f"{d.wins}/{d.losses}",
                f"{predicted[name]:+.4f}" if name in predicted else "",
                f"{values.mean() - scores['uniform'].mean():+.4f}",
            ]
        )
    columns = [
        "method",
        "objective",
        "learned minus it",
        "95 %",
        "wins/losses",
        "simulator: minus uniform",
        "real: minus uniform",
    ]
    show(f"{case.name} ({len(ours)} paired seeds)", columns, rows)
    mean = np.mean([np.mean(p, 0) for p in result["plans"]], 0)
    console.print(
        "learned, mean shares: "
        + ", ".join(f"{d} {100 * s:.0f}%" for d, s in zip(result["domains"], mean, strict=True))
    )
    both = [m for m in predicted if m in scores]
    real = [float(scores[m].mean() - scores["uniform"].mean()) for m in both]
    rank = float(spearmanr([predicted[m] for m in both], real)[0])
    pairs = ordered = 0
    for i, a in enumerate(both):
        for b in both[:i]:
            d = paired(scores[a], scores[b])
            if d.verdict != "tie":
                pairs += 1
                ordered += (predicted[a] - predicted[b]) * d.mean > 0
    gain = normalised_gain(ours, scores["uniform"], scores[free])
    uniform, best = paired(ours, scores["uniform"]), paired(ours, scores[free])
    figures = [
        Figure(
            f"{case.name}: learned minus uniform",
            round(uniform.mean, 5),
            "never behind",
            uniform.verdict != "lost",
            "aim",
            f"{uniform.verdict}",
        ),
        Figure(
            f"{case.name}: normalised gain against free static",
            gain,
            ">= 0.3",
            None if gain is None else gain >= 0.3,
            "aim",
            f"best free static: {free}",
        ),
        Figure(
            f"{case.name}: learned minus best constant in hindsight",
            round(best.mean, 5),
            "<= +0.003",
            best.mean <= 0.003,
            "aim",
            free,
        ),
        Figure(
            f"{case.name}: significant pairs ordered by the simulator",
            f"{ordered}/{pairs}",
            "all",
            ordered == pairs,
            "aim",
            f"Spearman {rank:.2f}",
        ),
    ]
    data = {
        "objective": {m: v.round(5).tolist() for m, v in scores.items()},
        "learned minus": {m: as_dict(paired(ours, v)) for m, v in scores.items() if m != LEARNED},
        "simulator minus uniform": predicted,
        "Spearman": rank,
        "mean shares": mean.tolist(),
        "domains": result["domains"],
    }
    return data, figures


def pooled(results: dict[str, dict[str, Any]]) -> list[Figure]:
    """The continual cases together: every (case, seed) pair of every method."""
    if not results:
        return []
    figures = []
    methods = [m for m in next(iter(results.values()))["scores"] if m != LEARNED]
    for method in methods:
        ours = np.concatenate([r["scores"][LEARNED] for r in results.values()])
        theirs = np.concatenate([r["scores"][method] for r in results.values()])
        d = paired(ours, theirs)
        aim = method not in ABLATIONS and method != "weights"
        figures.append(
            Figure(
                f"pooled continual: learned minus {method}",
                round(d.mean, 5),
                "ahead" if aim else "reported",
                d.verdict == "won" if aim else None,
                "aim",
                f"{d.verdict} [{d.low:+.4f}, {d.high:+.4f}] n={d.n}",
            )
        )
    return figures


def suite(options: Options) -> int:
    """Run the suite: train (or take) one agent a scenario, freeze it, run every case."""
    begun = time.time()
    seeds = options.seeds
    folder = options.cells
    rivals = tuple(options.agents or FIXED)
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    kept: dict[str, Any] = {}
    trained: dict[str, Any] = {}
    for case in CASES[:1] if options.quick else CASES:
        if options.cases and case.name not in options.cases:
            continue
        if case.needs and not public_data.available(case.needs):
            console.print(f"{case.name}: skipped, needs {case.needs} in {public_data.VARIABLE}")
            continue
        path = folder / f"learned-{case.scenario}.zip"
        if not path.exists():
            trained[case.scenario] = train(
                "data-mixing", path, case.scenario, iterations=300, arguments=case.training
            )
        result = run_case(case, path, seeds, folder, rivals)
        named = tuple(m for m in rivals if m in FIXED)
        results[case.name], judged = report_case(case, result, simulated(case, path, named))
        figures += judged
        if case.continual:
            kept[case.name] = result
    figures += pooled(kept)
    results["training"] = trained
    return finish("real", figures, results, begun, options)
