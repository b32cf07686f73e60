"""Benchmarks of data mixing."""
