"""Memory mapping on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from allocgym.agents.core import catalogue
from allocgym.benchmarks.core.front import Front
from allocgym.benchmarks.memory_mapping.training import TRAINERS
from allocgym.envs.core.errors import missing_extra
from allocgym.envs.core.registry import Suite
from allocgym.simulators.memory_mapping.backend import SCENARIOS, instances, make_scenario

_HOME = "allocgym.benchmarks.memory_mapping"
SUITES = {
    "mapping": Suite(
        f"{_HOME}.mapping:suite", "unseen programs, CPU budgets 0.1 to 60 s (about 10 min)", 1, 1
    ),
    "activation": Suite(
        "allocgym.benchmarks.activation_plan.activation:suite",
        "plans against torch's and simple rules, for real (about 6 min)",
    ),
    "real": Suite(
        "allocgym.benchmarks.activation_plan.activation:real",
        "20 random plans a model on a CPU (about 6 min)",
    ),
    "packing": Suite(
        "allocgym.benchmarks.packing.packing:suite",
        "MiniMalloc's 11 inputs and generated ones (about 8 min)",
    ),
    "strategy": Suite(
        "allocgym.benchmarks.strategy_selection.strategy:suite", "IOPDDL B and G (about 2 min)"
    ),
    "gpu": Suite(
        "allocgym.benchmarks.activation_plan.gpu:suite",
        "copies, random plans, GPT-2 124M on CUDA (not run here)",
    ),
    "speed": Suite(f"{_HOME}.speed:suite", "evaluator and environment (about 1 min)"),
}


class MappingFront(Front):
    """See `Front`."""

    problem: ClassVar[str] = "memory-mapping"
    package: ClassVar[str] = "memory_mapping"
    env_ids: ClassVar[tuple[str, ...]] = ("allocgym/MemoryMapping-v0", "allocgym/ActivationPlan-v0")
    scenario: ClassVar[str] = "train"
    fallback: ClassVar[str] = "drop-all"
    trainers = TRAINERS
    suites = SUITES

    def scenarios(self) -> list[str]:
        """See `Front.scenarios`."""
        return list(SCENARIOS)

    def evaluate(
        self, scenario: str, agents: list[str], seeds: int, overrides: dict[str, Any]
    ) -> None:
        """See `Front.evaluate`; agents play the order game, where their orders are exact."""
        from allocgym.agents.core.agent import rollout
        from allocgym.benchmarks.core.compare import paired
        from allocgym.benchmarks.core.suite import show
        from allocgym.envs.core.builder import make_backend, make_problem

        made = make_scenario(scenario, **overrides)
        most = max(len(p.tensors) for p, _ in instances(made))
        problem: Any = make_problem("memory-mapping", order=True, n_max=max(256, most))
        rules = [a for a in agents if a != "uniform"]
        found = {}
        for name in dict.fromkeys(["first-fit", "xla", *rules]):
            back = make_backend(problem, "twin", scenario=scenario, num_envs=seeds, **overrides)
            agent = catalogue.make(name, problem)
            last = rollout(agent, back, np.arange(seeds))[-1]
            found[name] = 1 - last.board.seconds / last.instance.all_slow
        rows = []
        for name, got in sorted(found.items(), key=lambda item: -item[1].mean()):
            d = paired(-got, -found["xla"])
            text = f"{-100 * d.mean:+.2f} [{-100 * d.high:+.2f}, {-100 * d.low:+.2f}]"
            rows.append([name, 100 * float(got.mean()), text])
        show(
            f"{scenario} ({seeds} paired seeds)",
            ["agent", "saved %", "points over xla, 95 %"],
            rows,
        )

    def calibrate(self, out: Path, processes: int, seeds: int) -> None:
        """See `Front.calibrate`: one process at a time, for the sake of the timings."""
        from allocgym.benchmarks.activation_plan.calibrate import record
        from allocgym.simulators.activation_plan.backend import RECORDED

        record(out, list(RECORDED), max(seeds, 2))

    def trace(self, model: str, out: Path, mode: str) -> str:
        """See `Front.trace`."""
        from allocgym.envs.core.journal import write_json
        from allocgym.envs.memory_mapping.program import from_trace

        try:
            from allocgym.real_backend.memory_mapping import trace
        except ImportError as error:
            raise missing_extra("torch", "real") from error
        found = trace.record(model, mode)
        program = from_trace(found, out.stem)
        write_json(out, found)
        return (
            f"wrote {out}: {len(program.ops)} ops, {len(program.tensors)} buffers, "
            f"{sum(o.flops for o in program.ops) / 1e9:.3g} GFLOP, peak {program.peak / 2**20:.4g} MiB; "
            f"play it: allocgym evaluate memory-mapping --scenario {out} --agents priorities,size"
        )

    def status(self, spec: Any, keyed: Any, outcome: Any) -> str:
        """See `Front.status`."""
        saved = 1 - outcome.board.seconds[0] / outcome.instance.all_slow[0]
        return f"{int(outcome.step[0])} decided, {100 * saved:.2f} % saved"


FRONT = MappingFront()
