"""Programs recorded from PyTorch models."""
