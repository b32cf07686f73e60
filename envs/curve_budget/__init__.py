"""Curve budgets: which configurations to train on."""
