"""Memory plans executed for real by PyTorch."""
