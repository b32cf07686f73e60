"""``python -m allocgym.benchmarks.memory_mapping --suite NAME``."""

from __future__ import annotations

from allocgym.benchmarks.core.main import main
from allocgym.benchmarks.memory_mapping.front import SUITES

if __name__ == "__main__":
    main("memory_mapping", SUITES)
