"""``python -m allocgym.benchmarks.population --suite NAME``."""

from allocgym.benchmarks.core.main import main
from allocgym.benchmarks.population.front import SUITES

if __name__ == "__main__":
    main("population", SUITES)
