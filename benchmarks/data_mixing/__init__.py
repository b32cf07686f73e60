"""benchmarks/data_mixing"""
