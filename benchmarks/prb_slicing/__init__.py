"""Benchmarks of radio slicing."""
