"""``python -m allocgym.benchmarks.data_mixing --suite NAME``."""

from allocgym.benchmarks.core.main import main
from allocgym.benchmarks.data_mixing.front import SUITES

if __name__ == "__main__":
    main("data_mixing", SUITES)
