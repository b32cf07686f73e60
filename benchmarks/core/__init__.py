"""What every benchmark has in common."""
