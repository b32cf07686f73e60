"""Workers that get the package from a wheel, and from nowhere else."""

import subprocess
import sys
from pathlib import Path

import pytest

from allocgym.envs.core.errors import AllocgymError
from allocgym.real_backend.core import cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: building leaves files behind."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a checkout")
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, folder / "source" / name
        if source.is_file() and source.suffix in (
            ".py",
            ".toml",
            ".json",
            ".zip",
            ".typed",
            ".md",
            "",
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), "."]
    subprocess.run(command, cwd=folder / "source", check=True, capture_output=True)
    return next(folder.glob("allocgym-*.whl"))


def test_what_is_no_wheel_is_told(tmp_path):
    with pytest.raises(AllocgymError, match=r"wheel: a \.whl file expected"):
        cluster.wheel_environment(tmp_path / "allocgym.zip")


@pytest.mark.slow
def test_dependencies_come_from_the_wheel(wheel):
    found = cluster.wheel_environment(wheel, extras=("real",))
    names = {line.split(">")[0].split("<")[0] for line in found["pip"]}
    assert {"numpy", "gymnasium", "torch", "safetensors"} <= names
    assert not {"stable-baselines3", "pytest", "ray[rllib]"} & names
    assert (Path(found["py_modules"][0]) / "envs" / "core" / "contracts.py").exists()
    assert "pip" not in cluster.wheel_environment(wheel, install=False)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_workers_use_the_wheel(wheel, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv(cluster.WHEEL, str(wheel))
    monkeypatch.setenv(cluster.WHEEL_ONLY, "1")

    def where(seed):
        import numpy as np

        import allocgym
        from allocgym.agents.core import catalogue
        from allocgym.agents.core.agent import rollout
        from allocgym.envs.core.builder import make_backend, make_problem

        problem = make_problem("data-mixing")
        agent = catalogue.make("odm", problem)
        rollout(agent, make_backend(problem, "twin", num_envs=2), np.array([seed, seed + 1]))
        return allocgym.__file__, agent.memory.objective.tolist()

    ray.shutdown()
    try:
        cluster.connect()
        place, objective = ray.get(ray.remote(where).remote(3))
    finally:
        ray.shutdown()
    assert str(ROOT) not in place and "py_modules" in place
    assert objective == where(3)[1], "and compute the same"
