"""Agents of rollout budgets."""
