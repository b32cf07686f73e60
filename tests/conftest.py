"""Fixed seeds and no time limits for hypothesis; factories that most tests need."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from allocgym.envs.core import builder
from allocgym.envs.data_mixing.problem import DataMixing

settings.register_profile(
    "allocgym", derandomize=True, deadline=None, database=None, max_examples=60
)
settings.load_profile("allocgym")


@pytest.fixture(scope="session")
def problem():
    return DataMixing()


@pytest.fixture(scope="session")
def make_backend():
    def make(name="twin", n_max=8, **arguments):
        return builder.make_backend(DataMixing(n_max=n_max), name, **arguments)

    return make


@pytest.fixture
def twin(make_backend):
    """Three environments of the default scenario, started on seeds 0, 1 and 2."""
    backend = make_backend(num_envs=3)
    backend.reset(np.arange(3))
    return backend


@pytest.fixture(scope="session")
def tiny_real(tmp_path_factory):
    """Arguments of a real run of seconds; base models are cached for the session."""
    return {
        "scenario": "scratch",
        "steps": 4,
        "horizon": 2,
        "valid_windows": 4,
        "test_windows": 4,
        "device": "cpu",
        "cache_dir": str(tmp_path_factory.mktemp("base")),
    }


@pytest.fixture(scope="session")
def live():
    """The module ``chaos/live.py``: small runs with checkpoints, and a script that kills itself."""
    path = Path(__file__).parent / "chaos" / "live.py"
    spec = importlib.util.spec_from_file_location("live", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
