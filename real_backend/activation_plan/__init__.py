"""Activation plans executed by PyTorch."""
