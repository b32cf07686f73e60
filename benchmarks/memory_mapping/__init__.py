"""Memory benchmarks: mapping, activation plans, real runs, packing, strategies, speed."""
