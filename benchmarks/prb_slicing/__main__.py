"""``python -m allocgym.benchmarks.prb_slicing --suite NAME``."""

from __future__ import annotations

from allocgym.benchmarks.core.main import main
from allocgym.benchmarks.prb_slicing.front import SUITES

if __name__ == "__main__":
    main("prb_slicing", SUITES)
