"""envs/data_mixing"""
