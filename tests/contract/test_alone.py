"""The core alone is enough: nothing optional is imported, and workers start from nothing."""

import subprocess
import sys
import textwrap

import cases
import gymnasium as gym
import numpy as np
from cases import actions, over, same

SCRIPT = textwrap.dedent("""
    import sys, warnings
    warnings.simplefilter("error")
    BLOCKED = {"torch", "ray", "stable_baselines3", "sb3_contrib", "cma", "safetensors", "matplotlib"}

    class Block:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in BLOCKED:
                raise ImportError(f"{name} is blocked")

    sys.meta_path.insert(0, Block())
    import gymnasium
    import allocgym
    import numpy as np
    from allocgym.agents.core import catalogue
    from allocgym.agents.core.agent import rollout
    from allocgym.envs.core.builder import build
    from allocgym.envs.core.registry import entries

    assert not {"numba", "scipy", "pandas", "rich", "typer"} & {m.split(".")[0] for m in sys.modules}
    for entry in entries():
        env = gymnasium.make(f"allocgym:{entry.env}")
        env.reset(seed=0)
        env.step(env.action_space.sample())
        many = gymnasium.make_vec(f"allocgym:{entry.env}", num_envs=4)
        many.reset(seed=0)
        many.step(many.action_space.sample())
        backend = build(entry.id, entry.vector_backend, num_envs=2)
        rollout(catalogue.make(entry.fallback, backend.problem), backend, np.arange(2))
        print(entry.id)
    assert not BLOCKED & {m.split(".")[0] for m in sys.modules}
    print("done")
""")


def test_simulators_and_rules_need_no_extra():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr


def test_the_list_imports_little():
    """What `allocgym list` and `--help` take: no compiler, no statistics, no tensors."""
    script = (
        "import sys; sys.argv = ['allocgym', 'list']\n"
        "from allocgym.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'numba', 'scipy', 'pandas', 'torch', 'ray', 'matplotlib', 'statsmodels', 'simpy'}\n"
        "print('HEAVY', sorted(heavy & {m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.endswith("HEAVY []\n"), done.stdout[-300:]


@over([c for c in cases.firsts() if c.backend == next(iter(c.entry.backends)) and c.kind.batched])
def test_spawned_workers_make_it_by_its_name(case):
    name = f"allocgym:{case.entry.env}"
    env = gym.make_vec(
        name,
        num_envs=2,
        vectorization_mode="async",
        vector_kwargs={"context": "spawn"},
        **case.arguments,
    )
    try:
        observation, _ = env.reset(seed=3)
        plan = actions(env.single_action_space, 2, 2)
        lone = case.env()
        expected, _ = lone.reset(seed=4)
        same(expected, observation, 1) if isinstance(observation, dict) else None
        for action in plan:
            observation, reward, *_ = env.step(action)
            expected, value, done, _, _ = lone.step(action[1])
            assert value == reward[1]
            if done:
                break
            if isinstance(observation, dict):
                for key in expected:
                    np.testing.assert_array_equal(expected[key], observation[key][1])
    finally:
        env.close()
