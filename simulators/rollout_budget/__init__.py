"""Simulator of rollout budgets."""
