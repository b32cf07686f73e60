"""Benchmarks of strategy selection."""
