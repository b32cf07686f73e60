"""simulators/core"""
