"""Benchmarks of packing."""
