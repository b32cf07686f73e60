"""``--suite search``: prompts solved at a fixed cost, whole attempts against trees."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np

from allocgym.benchmarks.core.compare import Paired, as_dict, holm, paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.benchmarks.rollout_budget import episodes
from allocgym.simulators.rollout_budget.scenario import SCENARIOS, SEARCHES, RolloutScenario

AGENTS = (
    "uniform",
    "random",
    "anti",
    "posterior-greedy",
    "knapsack-beta",
    "mopps",
    "deficiency-first",
    "coverage",
    "sequential",
    "oracle-coverage",
)
BOUND = "oracle-coverage"
PRESETS = ("qwen1.5b-dsr", "hard-tail", "homogeneous")
HORIZON = 24
"""Updates: six epochs over the prompts, the model as it is."""


def play(scenario: RolloutScenario, agents: list[str], seeds: int) -> dict[str, np.ndarray]:
    """Share of prompts solved by every agent, ``(seeds,)``."""
    return {
        name: episodes.play(name, scenario, np.arange(seeds))["accuracy"][:, -1] for name in agents
    }


def against(found: dict[str, np.ndarray], base: str) -> dict[str, tuple[Paired, float]]:
    """Paired differences of unsolved shares (negative: ahead of the base), and Holm's p."""
    rivals = [n for n in found if n != base]
    each = {n: paired(1 - found[n], 1 - found[base]) for n in rivals}
    corrected = holm([d.p for d in each.values()])
    return dict(zip(rivals, zip(each.values(), corrected, strict=True), strict=True))


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    agents = list(dict.fromkeys(["uniform", *(options.agents or AGENTS)]))
    figures: list[Figure] = []
    results: dict[str, Any] = {}
    for preset in options.cases or PRESETS:
        for kind in SEARCHES:
            made = SCENARIOS[preset]
            found = play(
                dataclasses.replace(made, search=kind, horizon=HORIZON), agents, options.seeds
            )
            versus = against(found, "uniform")
            rows = [
                [
                    n,
                    float(v.mean()),
                    *(
                        [f"{-d.mean:+.4f}", f"[{-d.high:+.4f}, {-d.low:+.4f}]"]
                        if (d := versus.get(n, (None,))[0])
                        else ["", ""]
                    ),
                ]
                for n, v in sorted(found.items(), key=lambda item: -item[1].mean())
            ]
            show(
                f"{preset}, {kind}: prompts solved ({options.seeds} paired seeds)",
                ["allocator", "solved", "minus uniform", "95 %"],
                rows,
            )
            results[f"{preset}, {kind}"] = {
                "solved": {n: round(float(v.mean()), 5) for n, v in found.items()},
                "minus uniform (unsolved)": {n: as_dict(d) for n, (d, _) in versus.items()},
            }
            if BOUND in found:
                figures.append(bound(f"{preset}, {kind}", found))
            if preset != "homogeneous" and "coverage" in versus:
                d = versus["coverage"][0]
                figures.append(
                    Figure(
                        f"{preset}, {kind}: coverage minus uniform",
                        round(-d.mean, 5),
                        "ahead",
                        d.verdict == "won",
                        "aim",
                        f"{d.verdict} [{-d.high:+.4f}, {-d.low:+.4f}]",
                    )
                )
    return finish("search", figures, results, begun, options)


def bound(case: str, found: dict[str, np.ndarray]) -> Figure:
    """Nothing that decides at once solves more than who knows the rates; asking again may."""
    once = {n: v for n, v in found.items() if n != "sequential"}
    ahead = [n for n, (d, p) in against(once, BOUND).items() if d.verdict == "won" and p < 0.05]
    return Figure(
        f"{case}: allocators that decide at once ahead of true rates",
        len(ahead),
        "0",
        not ahead,
        "must",
        ", ".join(ahead),
    )
