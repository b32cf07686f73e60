"""real_backend/data_mixing"""
