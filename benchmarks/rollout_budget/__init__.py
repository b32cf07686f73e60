"""Benchmarks of rollout budgets."""
