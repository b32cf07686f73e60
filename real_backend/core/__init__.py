"""real_backend/core"""
