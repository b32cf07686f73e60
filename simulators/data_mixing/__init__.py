"""simulators/data_mixing"""
