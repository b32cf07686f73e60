"""Every problem of the package, as an `Entry` each: strings only, nothing is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from allocgym.envs.core.registry import Entry, Target, register, register_installed


def _entry(room: str, name: str, backends: Mapping[str, Target], **more: Any) -> Entry:
    """An entry whose rooms follow the package's layout.

    Args:
        room: folder of the problem on every floor, such as ``"data_mixing"``.
        name: of the environment and problem classes, such as ``"DataMixing"``.
        backends: targets without ``"allocgym."``.
        more: the other fields; trainers and tools by target without ``"allocgym."``; ``scenarios``
            where they are not the simulator's.
    """

    def whole(target: Target) -> Target:
        if isinstance(target, str):
            return f"allocgym.{target}"
        return f"allocgym.{target[0]}", target[1]

    trainers = {k: (f"allocgym.agents.{t}", n) for k, (t, n) in more.pop("trainers").items()}
    kinds = {k: f"allocgym.agents.{t}" for k, t in more.pop("kinds", {}).items()}
    tools = {k: f"allocgym.{t}" for k, t in more.pop("tools", {}).items()}
    scenarios = more.pop("scenarios", f"simulators.{room}.scenario:SCENARIOS")
    return Entry(
        id=room.replace("_", "-"),
        env=f"allocgym/{name}-v0",
        environment=f"allocgym.envs.{room}.env:{name}Env",
        problem=f"allocgym.envs.{room}.problem:{name}",
        backends={k: whole(t) for k, t in backends.items()},
        scenarios=f"allocgym.{scenarios}",
        agents=f"allocgym.agents.{room}.catalogue:AGENTS",
        suites=f"allocgym.benchmarks.{room}.suites:SUITES",
        trainers=trainers,
        kinds=kinds,
        tools=tools,
        **more,
    )


def _engines(target: str) -> dict[str, Target]:
    """SimPy and the batched twin of one simulator class."""
    return {engine: (target, {"engine": engine}) for engine in ("simpy", "twin")}


ENTRIES = (
    _entry(
        "data_mixing",
        "DataMixing",
        {
            **_engines("simulators.data_mixing.backend:MixingSimulator"),
            "replay": "simulators.core.replay:Replay",
            "real": "real_backend.data_mixing.backend:RealMixing",
            "ray": "real_backend.data_mixing.parallel:ParallelMixing",
        },
        scenario="continual-pretraining",
        reference="uniform",
        bounds=("oracle-static", "oracle-schedule"),
        trainers={
            "gradient": ("data_mixing.training:by_gradients", 300),
            "ppo": ("data_mixing.training:by_ppo", 20),
            "cma": ("data_mixing.training:by_evolution", 40),
            "rllib-ppo": ("data_mixing.training:by_rllib", 80),
            "rllib-appo": ("data_mixing.training:by_rllib", 80),
        },
        kinds={"index": "data_mixing.index:IndexMixer"},
        tools={
            "calibrate": "benchmarks.data_mixing.calibrate:calibrate",
            "fit": "benchmarks.data_mixing.own_runs:fit",
            "recommend": "benchmarks.data_mixing.own_runs:recommend",
        },
    ),
    _entry(
        "rollout_budget",
        "RolloutBudget",
        {
            **_engines("simulators.rollout_budget.backend:RolloutSimulator"),
            "real": "real_backend.rollout_budget.backend:RealRollouts",
        },
        scenario="qwen1.5b-dsr",
        reference="uniform",
        bounds=("oracle",),
        trainers={
            "cma": ("rollout_budget.training:by_evolution", 16),
            "ppo": ("rollout_budget.training:by_ppo", 10),
        },
        kinds={"learned-index": "rollout_budget.learned:IndexAgent"},
    ),
    _entry(
        "prb_slicing",
        "PRBSlicing",
        {
            "simpy": "simulators.prb_slicing.packets:PacketCell",
            "twin": "simulators.prb_slicing.backend:FluidCell",
            "replay": ("simulators.core.replay:Replay", {"off_policy": "recorded"}),
            "linux": "real_backend.prb_slicing.kernel:LinuxCell",
            "scope": "real_backend.prb_slicing.scope:ScopeCell",
            "ric": "real_backend.prb_slicing.ric:RicCell",
        },
        scenarios="envs.prb_slicing.scenario:SCENARIOS",
        scenario="generated",
        reference="equal",
        fallback="demand-proportional",
        trainers={
            "ppo": ("prb_slicing.training:by_ppo", 16),
            "dqn": ("prb_slicing.training:by_dqn", 120),
            "table": ("prb_slicing.training:by_table", 40),
        },
        kinds={"dqn": "prb_slicing.tractor:DQNAgent", "table": "prb_slicing.tractor:TableAgent"},
    ),
    _entry(
        "population",
        "Population",
        {
            **_engines("simulators.population.backend:PopulationSimulator"),
            "real": "real_backend.population.backend:RealPopulation",
            "ray": "real_backend.population.trials:RayPopulation",
        },
        scenario="unknown-edge",
        reference="random-search",
        bounds=("tuned-wsd", "oracle"),
        trainers={
            "cma": ("population.training:by_evolution", 40),
            "ppo": ("population.training:by_ppo", 200),
        },
        kinds={"index": "population.index:IndexController"},
    ),
    _entry(
        "curve_budget",
        "CurveBudget",
        {"replay": "simulators.curve_budget.backend:RecordedCurves"},
        scenario="synthetic",
        reference="random-search",
        fallback="asha",
        trainers={"cma": ("curve_budget.training:by_evolution", 25)},
        kinds={"linear-priority": "curve_budget.priority:LinearPriority"},
    ),
    _entry(
        "memory_mapping",
        "MemoryMapping",
        _engines("simulators.memory_mapping.backend:MappingSimulator"),
        scenario="train",
        reference="xla",
        fallback="drop-all",
        trainers={
            "cma": ("memory_mapping.training:by_evolution", 40),
            "masked-ppo": ("memory_mapping.training:by_masked_ppo", 200_000),
        },
        kinds={
            "priority-portfolio": "memory_mapping.heuristics:PriorityAgent",
            "segment-policy": "memory_mapping.heuristics:SegmentAgent",
        },
        tools={"trace": "benchmarks.memory_mapping.trace:trace"},
    ),
    _entry(
        "activation_plan",
        "ActivationPlan",
        {
            **_engines("simulators.activation_plan.backend:ActivationSimulator"),
            "torch": "real_backend.activation_plan.backend:TorchPlan",
        },
        scenario="gpt-gpu",
        reference="cheapest-recompute",
        fallback="recompute-all",
        trainers={"masked-ppo": ("activation_plan.training:by_masked_ppo", 150_000)},
        kinds={"segment-policy": "activation_plan.heuristics:PolicyPlanner"},
        tools={"calibrate": "benchmarks.activation_plan.calibrate:calibrate"},
    ),
    _entry(
        "packing",
        "Packing",
        {"twin": "simulators.packing.backend:PackingSimulator"},
        scenario="tight",
        reference="size",
        fallback="area",
        trainers={"cma": ("packing.training:by_evolution", 200)},
        kinds={"packing-priorities": "packing.heuristics:PriorityPacker"},
    ),
    _entry(
        "strategy_selection",
        "StrategySelection",
        {"twin": "simulators.strategy_selection.backend:SelectionSimulator"},
        scenario="train",
        reference="look-ahead",
        fallback="least-memory",
        trainers={"cma": ("strategy_selection.training:by_evolution", 40)},
        kinds={"selection-score": "strategy_selection.heuristics:Scored"},
    ),
)


def register_all() -> None:
    """Register the package's own problems and those of installed packages. Idempotent."""
    for entry in ENTRIES:
        register(entry)
    register_installed()
