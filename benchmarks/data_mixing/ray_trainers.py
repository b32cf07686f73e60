"""``--suite trainers``: RLlib's PPO and Stable-Baselines3's on one problem, equal environment steps."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from allocgym.agents.core.training import train
from allocgym.benchmarks.core import engines
from allocgym.benchmarks.core.compare import paired
from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.suite import Figure, finish, show
from allocgym.benchmarks.data_mixing.simulator import run, score

SCENARIO = "continual-pretraining"
STEPS = 204_800
PER_ITERATION = {"ppo": 20_480, "rllib-ppo": 5_120}


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    engines.connect()
    steps = STEPS // 4 if options.quick else STEPS
    made: dict[str, dict[str, Any]] = {}
    scores = {"uniform": score(run("uniform", SCENARIO, options.seeds, {}))}
    with tempfile.TemporaryDirectory() as folder:
        for trainer, each in PER_ITERATION.items():
            path = Path(folder) / f"{trainer}.zip"
            used = time.process_time()
            made[trainer] = train("data-mixing", path, SCENARIO, trainer, max(steps // each, 1))
            made[trainer]["steps/s"] = round(steps / (time.process_time() - used))
            scores[trainer] = score(run(str(path), SCENARIO, options.seeds, {}))
    sb3, rllib = (made[k]["steps/s"] for k in PER_ITERATION)
    d = paired(scores["rllib-ppo"], scores["ppo"])
    show(
        f"PPO on {SCENARIO}, {steps:,} environment steps each",
        ["trainer", "objective", "steps/CPU-s"],
        [[k, float(v.mean()), made[k]["steps/s"] if k in made else ""] for k, v in scores.items()],
    )
    where = made["rllib-ppo"]
    figures = [
        Figure(
            "RLlib's agent minus Stable-Baselines3's",
            round(d.mean, 5),
            "level",
            d.verdict == "tie",
            "aim",
            f"{d.verdict} [{d.low:+.4f}, {d.high:+.4f}]",
        ),
        Figure("Stable-Baselines3: steps per CPU-second", sb3, "printed", None, "aim"),
        Figure(
            "RLlib: steps per CPU-second",
            rllib,
            "printed",
            None,
            "aim",
            f"{where['seconds sampling']} s sampling (its connectors), "
            f"{where['seconds learning']} s learning",
        ),
        Figure("Stable-Baselines3 / RLlib", round(sb3 / rllib, 1), "printed", None, "aim"),
    ]
    return finish("trainers", figures, made, begun, options)
