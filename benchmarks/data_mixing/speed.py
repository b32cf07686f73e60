"""``--suite speed``: environment steps per second on one core, ratios measured in one run."""

from __future__ import annotations

import time
from typing import Any

import gymnasium as gym
import numpy as np

from allocgym.benchmarks.core.options import Options
from allocgym.benchmarks.core.rates import rate
from allocgym.benchmarks.core.suite import Figure, finish, show

ID = "allocgym:allocgym/DataMixing-v0"
# The training distribution's law with eight domains; float32, full observation.
SETTING: dict[str, Any] = {"scenario": "continual-pretraining", "domains": 8, "horizon": 50}


def vector_rate(env: Any, seconds: float) -> float:
    """Steps per CPU-second of a vector environment, resets included."""
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    shape = (env.num_envs, *env.single_action_space.shape)
    actions = rng.uniform(-0.5, 0.5, shape).astype(np.float32)

    def step() -> int:
        for _ in range(20):
            env.step(actions)
        return 20 * int(env.num_envs)

    return rate(step, seconds)


def scalar_rate(backend: str, seconds: float) -> float:
    """Steps per CPU-second of the scalar environment, resets included."""
    env = gym.make(ID, backend=backend, **SETTING)
    action = np.zeros(8, np.float32)
    env.reset(seed=0)

    def step() -> int:
        for _ in range(50):
            if env.step(action)[2]:
                env.reset()
        return 50

    return rate(step, seconds)


def ppo_rate(flatten: bool, stretches: int) -> float:
    """Frames per CPU-second of SB3's PPO at 1,024 environments, training included, one thread.

    Four epochs in minibatches of 8,192; the MLP has two layers of 64 (ReLU) for the policy and two
    for the value. The fastest of several stretches of 65,536 frames.
    """
    import torch
    from stable_baselines3 import PPO

    from allocgym.agents.core.sb3 import SB3VecEnv, SetActorCritic

    torch.set_num_threads(1)
    env: Any = gym.make_vec(ID, num_envs=1024, dtype="float32", **SETTING)
    wrapped = SB3VecEnv(env.unwrapped, flatten=flatten)
    policy: Any = "MlpPolicy" if flatten else SetActorCritic
    shape = {"activation_fn": torch.nn.ReLU} if flatten else {}
    model = PPO(
        policy,
        wrapped,
        n_steps=64,
        batch_size=8192,
        n_epochs=4,
        device="cpu",
        seed=0,
        policy_kwargs=shape,
    )
    model.learn(1)
    best = 0.0
    for _ in range(stretches):
        begun = time.process_time()
        model.learn(65_536, reset_num_timesteps=False)
        best = max(best, 65_536 / (time.process_time() - begun))
    return best


def suite(options: Options) -> int:
    """Run the suite."""
    begun = time.time()
    quick = options.quick
    seconds = 2.0 if quick else 8.0
    twin: Any = gym.make_vec(ID, num_envs=1024, dtype="float32", **SETTING)
    fast = vector_rate(twin, seconds)
    exact: Any = gym.make_vec(ID, num_envs=1024, **SETTING)
    double = vector_rate(exact, seconds)
    sync = gym.make_vec(
        ID, num_envs=64, vectorization_mode=gym.VectorizeMode.SYNC, backend="twin", **SETTING
    )
    slow = vector_rate(sync, seconds)
    simpy = scalar_rate("simpy", seconds)
    scalar = scalar_rate("twin", seconds)
    mlp = ppo_rate(True, 2 if quick else 6)
    sets = ppo_rate(False, 1)
    show(
        "speed, one core (CPU-seconds)",
        ["what", "steps/s"],
        [
            ["twin, 1,024 environments x 8 domains, float32", f"{fast:,.0f}"],
            ["the same, float64", f"{double:,.0f}"],
            ["SyncVectorEnv(64) of scalar twins", f"{slow:,.0f}"],
            ["scalar, SimPy", f"{simpy:,.0f}"],
            ["scalar, twin", f"{scalar:,.0f}"],
            ["PPO (SB3), plain MLP, training included", f"{mlp:,.0f}"],
            ["PPO (SB3), set policy, training included", f"{sets:,.0f}"],
        ],
    )
    figures = [
        Figure("twin env-steps/s (float32)", round(fast), ">= 2,000,000", fast >= 2e6),
        Figure("twin / SyncVectorEnv(64)", round(fast / slow, 1), ">= 20", fast / slow >= 20),
        Figure("SimPy env steps/s", round(simpy), ">= 2,000", simpy >= 2000),
        Figure("PPO frames/s, plain MLP", round(mlp), ">= 60,000", mlp >= 60000),
        Figure("PPO frames/s, set policy", round(sets), "reported", True, "aim"),
        *overhead(quick),
    ]
    return finish("speed", figures, {"float64": double, "scalar twin": scalar}, begun, options)


def overhead(quick: bool) -> list[Figure]:
    """What the environment adds to the bare training loop of the real back end."""
    problem_steps = 40 if quick else 120
    env: Any = gym.make(
        ID, backend="real", scenario="scratch", steps=problem_steps, horizon=4
    ).unwrapped
    env.reset(seed=0)
    inside = 0.0
    whole = time.process_time()
    hook = env.backend._spend

    def timed(decision: Any) -> Any:
        nonlocal inside
        begun = time.process_time()
        outcome = hook(decision)
        inside += time.process_time() - begun
        return outcome

    env.backend._spend = timed
    done = False
    while not done:
        done = env.step(np.zeros(8, np.float32))[2]
    whole = time.process_time() - whole
    added = (whole - inside) / inside
    return [
        Figure(
            "share the environment adds to the bare training loop (real)",
            round(added, 5),
            "<= 0.02",
            added <= 0.02,
        )
    ]
