"""Benchmarks of memory mapping."""
