"""Recorded learning curves, looked up."""
