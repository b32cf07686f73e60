"""Activation plans: keep, recompute or offload."""
