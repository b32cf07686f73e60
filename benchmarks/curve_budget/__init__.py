"""Benchmarks of curve budgets."""
