"""``python -m allocgym.benchmarks.rollout_budget --suite NAME``."""

from allocgym.benchmarks.core.main import main
from allocgym.benchmarks.rollout_budget.front import SUITES

if __name__ == "__main__":
    main("rollout_budget", SUITES)
