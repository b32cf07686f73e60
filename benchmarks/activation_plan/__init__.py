"""Benchmarks of activation plans: simulated, real, on a GPU."""
