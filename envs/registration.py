"""Everything the package registers, in one flat list of strings."""

from __future__ import annotations

import gymnasium as gym

from allocgym.envs.core.registry import register_backend, register_problem


def register_all() -> None:
    """Register environments, problems and back ends. Idempotent; imports none of them."""
    if "allocgym/DataMixing-v0" in gym.registry:
        return
    _environment("DataMixing", "allocgym.envs.data_mixing.env")
    register_problem("data-mixing", "allocgym.envs.data_mixing.problem:DataMixing")
    simulator = "allocgym.simulators.data_mixing.backend"
    register_backend("data-mixing", "simpy", f"{simulator}:simpy_backend")
    register_backend("data-mixing", "twin", f"{simulator}:twin_backend")
    register_backend("data-mixing", "replay", "allocgym.simulators.data_mixing.replay:Replay")
    register_backend("data-mixing", "real", "allocgym.real_backend.data_mixing.backend:RealMixing")
    several = "allocgym.real_backend.data_mixing.parallel:ParallelMixing"
    register_backend("data-mixing", "ray", several)
    _environment("RolloutBudget", "allocgym.envs.rollout_budget.env")
    register_problem("rollout-budget", "allocgym.envs.rollout_budget.problem:RolloutBudget")
    rollouts = "allocgym.simulators.rollout_budget.backend"
    register_backend("rollout-budget", "simpy", f"{rollouts}:simpy_backend")
    register_backend("rollout-budget", "twin", f"{rollouts}:twin_backend")
    grpo = "allocgym.real_backend.rollout_budget.backend"
    register_backend("rollout-budget", "real", f"{grpo}:RealRollouts")
    _environment("PRBSlicing", "allocgym.envs.prb_slicing.env")
    register_problem("prb-slicing", "allocgym.envs.prb_slicing.problem:PRBSlicing")
    radio = "allocgym.simulators.prb_slicing"
    register_backend("prb-slicing", "simpy", f"{radio}.backend:simpy_backend")
    register_backend("prb-slicing", "twin", f"{radio}.backend:twin_backend")
    register_backend("prb-slicing", "replay", f"{radio}.replay:Replay")
    live = "allocgym.real_backend.prb_slicing.backend"
    register_backend("prb-slicing", "linux", f"{live}:linux_backend")
    register_backend("prb-slicing", "scope", f"{live}:scope_backend")
    register_backend("prb-slicing", "ric", f"{live}:ric_backend")
    _environment("Population", "allocgym.envs.population.env")
    register_problem("population", "allocgym.envs.population.problem:Population")
    members = "allocgym.simulators.population.backend"
    register_backend("population", "simpy", f"{members}:simpy_backend")
    register_backend("population", "twin", f"{members}:twin_backend")
    networks = "allocgym.real_backend.population.backend"
    register_backend("population", "real", f"{networks}:RealPopulation")
    trials = "allocgym.real_backend.population.trials"
    register_backend("population", "ray", f"{trials}:RayPopulation")
    _environment("CurveBudget", "allocgym.envs.curve_budget.env")
    register_problem("curve-budget", "allocgym.envs.curve_budget.problem:CurveBudget")
    recorded = "allocgym.simulators.curve_budget.backend"
    register_backend("curve-budget", "replay", f"{recorded}:RecordedCurves")
    _environment("MemoryMapping", "allocgym.envs.memory_mapping.env")
    register_problem("memory-mapping", "allocgym.envs.memory_mapping.problem:MemoryMapping")
    mapping = "allocgym.simulators.memory_mapping.backend"
    register_backend("memory-mapping", "simpy", f"{mapping}:simpy_backend")
    register_backend("memory-mapping", "twin", f"{mapping}:twin_backend")
    _environment("ActivationPlan", "allocgym.envs.activation_plan.env")
    register_problem("activation-plan", "allocgym.envs.activation_plan.problem:ActivationPlan")
    steps = "allocgym.simulators.activation_plan.backend"
    register_backend("activation-plan", "simpy", f"{steps}:simpy_backend")
    register_backend("activation-plan", "twin", f"{steps}:twin_backend")
    plans = "allocgym.real_backend.activation_plan.backend"
    register_backend("activation-plan", "torch", f"{plans}:TorchPlan")
    _environment("Packing", "allocgym.envs.packing.env")
    register_problem("packing", "allocgym.envs.packing.problem:Packing")
    packings = "allocgym.simulators.packing.backend"
    register_backend("packing", "twin", f"{packings}:PackingSimulator")
    _environment("StrategySelection", "allocgym.envs.strategy_selection.env")
    selecting = "allocgym.envs.strategy_selection.problem"
    register_problem("strategy-selection", f"{selecting}:StrategySelection")
    selections = "allocgym.simulators.strategy_selection.backend"
    register_backend("strategy-selection", "twin", f"{selections}:SelectionSimulator")


def _environment(name: str, module: str) -> None:
    """Name an environment and its batched twin: classes ``<name>Env`` and ``<name>VectorEnv``."""
    gym.register(
        id=f"allocgym/{name}-v0",
        entry_point=f"{module}:{name}Env",
        vector_entry_point=f"{module}:{name}VectorEnv",
        disable_env_checker=True,
    )
