"""benchmarks/core"""
