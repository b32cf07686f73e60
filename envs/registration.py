"""Everything the package registers, in one flat list of strings."""

from __future__ import annotations

import gymnasium as gym

from allocgym.envs.core.registry import register_backend, register_problem


def register_all() -> None:
    """Register environments, problems and back ends. Idempotent; imports none of them."""
    if "allocgym/DataMixing-v0" in gym.registry:
        return
    gym.register(
        id="allocgym/DataMixing-v0",
        entry_point="allocgym.envs.data_mixing.env:DataMixingEnv",
        vector_entry_point="allocgym.envs.data_mixing.env:DataMixingVectorEnv",
        disable_env_checker=True,
    )
    register_problem("data-mixing", "allocgym.envs.data_mixing.problem:DataMixing")
    simulator = "allocgym.simulators.data_mixing.backend"
    register_backend("data-mixing", "simpy", f"{simulator}:simpy_backend")
    register_backend("data-mixing", "twin", f"{simulator}:twin_backend")
    register_backend("data-mixing", "replay", "allocgym.simulators.data_mixing.replay:Replay")
    register_backend("data-mixing", "real", "allocgym.real_backend.data_mixing.backend:RealMixing")
