"""Who decides better: paired comparisons, fidelity and speed."""

if __name__ != "allocgym.benchmarks":
    raise ImportError("import allocgym.benchmarks, not benchmarks")
